"""Showing the progress that endpoints tell."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Callable

Report = Callable[[int, int, str], None]


@contextlib.contextmanager
def reporter(wanted: Report | bool, title: str) -> Iterator[Report | None]:  # noqa: FBT001
    """Give what is to be called with progress; None if nobody wants to know."""
    if wanted is False:
        yield None
    elif wanted is not True:
        yield wanted
    else:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            yield None
            return
        with contextlib.ExitStack() as stack:
            yield _bar(lambda total: stack.enter_context(tqdm(total=total, desc=title)))


def _bar(opened: Callable[[int | None], Any]) -> Report:
    bar: Any = None

    def report(done: int, total: int, note: str) -> None:
        nonlocal bar
        if bar is None:
            # Not before there is something to show: most calls are over at once.
            bar = opened(total or None)
        if total:
            bar.total = total
        if note:
            bar.set_postfix_str(note, refresh=False)
        bar.update(done - bar.n)

    return report
