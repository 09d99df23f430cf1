"""What soaks count, as they write it into ``ST_COUNTS``, a line of JSON each round."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

#: Of these there may be none at all.
NEVER = ("wrong_words", "leaked_descriptors")


def read(path: Path) -> tuple[dict[str, object], list[str]]:
    """Add up the counts of all rounds, and give the sizes, which are those of every round."""
    added: Counter[str] = Counter()
    sizes: dict[str, int] = {}
    lines, problems = 0, []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            value = json.loads(text)
            found = {str(name): int(count) for name, count in value["counts"].items()}
            own = {str(name): int(size) for name, size in value["sizes"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"line {number} of its counts cannot be read: {error!r}")
            continue
        added.update(found)
        for name, size in own.items():
            # What there was room for may differ; the least of it is what can be said of all.
            sizes[name] = min(size, sizes.get(name, size))
        lines += 1
    return {"counted": dict(added), "sizes": sizes, "lines": lines}, problems


def judge(said: dict[str, object], rounds: int, kills: int) -> list[str]:
    """Tell what the counts of so many rounds, each with so many kills, do not bear out."""
    counted = said["counted"]
    assert isinstance(counted, dict)
    problems = []
    if said["lines"] != rounds:
        problems.append(f"counted in {said['lines']} rounds of {rounds}")
    if counted.get("kills") != rounds * kills:
        problems.append(f"counted {counted.get('kills')} kills, not {rounds * kills}")
    problems += [f"counted {counted[it]} {it}" for it in NEVER if counted.get(it)]
    if not counted.get("objects_read"):
        problems.append("read nothing")
    return problems
