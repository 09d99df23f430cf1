"""What moving a module into memory that can be lent costs, in time and in memory beside it.

moves.py [GIB]. In one process, without a client: each setting in turn, several rounds, beside what
the driver alone takes for it. Figures go to the file of ST_FIGURES.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.append(str(HERE.parent.parent))

import driver_alone  # noqa: E402
import rows  # noqa: E402
import summary  # noqa: E402
import torch  # noqa: E402
from least import Least  # noqa: E402
from summary import Setting  # noqa: E402
from watched import tell  # noqa: E402

from gpu import calls  # noqa: E402
from shared_tensor._modules import Policy  # noqa: E402
from shared_tensor._service import moving  # noqa: E402
from shared_tensor._service.lending import Where, lend  # noqa: E402

GIB = 1 << 30
COUNT = 100
ROUNDS = 3
SETTINGS = (Setting(0, 1), Setting(1, 1), Setting(2, 1), Setting(1, 8), Setting(1, 1000))
#: What the driver keeps for itself differs by so much between two looks.
NOISE = 256 << 20
PATIENCE_S = 30.0
PAUSE_S = 0.02


def made(count: int) -> Any:
    """Make a module of so many parameters of a GiB each."""
    return torch.nn.ParameterList(
        torch.nn.Parameter(
            torch.full((GIB // 4,), float(number), device="cuda"), requires_grad=False
        )
        for number in range(count)
    )


def moved(module: Any, name: str) -> float:
    """Lend a module, and give the seconds until all is there."""
    noted = calls.noted("bench", name, devices=[rows.device()], ordering=rows.ordering())
    torch.cuda.synchronize()
    begun = time.perf_counter()
    with noted:
        (_value,) = lend([module], Where(writable=False), policy=Policy(), kept=(0,))
    torch.cuda.synchronize()
    took = time.perf_counter() - begun
    wrong = [at for at, it in enumerate(module) if not bool((it == float(at)).all())]
    if wrong:
        raise ValueError(f"parameters {wrong} are not what they were")
    return took


def clear(free: int) -> None:
    """Wait until as much is free again: mappings linger for a moment."""
    gc.collect()
    torch.cuda.empty_cache()
    give_up = time.monotonic() + PATIENCE_S
    while torch.cuda.mem_get_info()[0] < free - NOISE:
        if time.monotonic() > give_up:
            short = free - torch.cuda.mem_get_info()[0]
            raise MemoryError(f"{short} bytes are not free {PATIENCE_S:.0f} s after their use")
        time.sleep(PAUSE_S)


def timed(count: int, name: str) -> float:
    """Move one, and give the seconds."""
    free = torch.cuda.mem_get_info()[0]
    took = moved(made(count), name)
    clear(free)
    return took


def watched(count: int, name: str) -> int:
    """Move one, and give how many bytes it took beside itself at most."""
    free = torch.cuda.mem_get_info()[0]
    module = made(count)
    torch.cuda.synchronize()
    least = Least()
    least.start()
    moved(module, name)
    extra = least.stop()
    del module
    clear(free)
    return extra


def main() -> None:
    """Measure, and print."""
    rows.tell_where()
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    floors = [driver_alone.moving(count) for _ in range(ROUNDS)]
    # What torch and the driver load once is there from then on.
    float(made(1)[0].sum())
    took: dict[Setting, list[float]] = {setting: [] for setting in SETTINGS}
    extra: dict[Setting, int] = {}
    for number in range(ROUNDS + 1):
        for setting in SETTINGS:
            moving.AHEAD, moving.KEPT = setting.ahead, setting.kept_gib * GIB
            name = summary.name_of_move(count, setting)
            if number < ROUNDS:
                took[setting].append(timed(count, name))
                tell(f"{name}: {1000 * took[setting][-1]:.1f} ms")
            else:
                extra[setting] = watched(count, name)
                tell(f"{name}: {extra[setting] / GIB:.2f} GiB beside it")
    about = {"ordering": rows.ordering(), "device": rows.device()}
    figures = summary.of_moves(count, took, extra, about, floors)
    figures += summary.of_driver(count, floors)
    for figure in figures:
        print(figure["name"], figure["p50"], figure["unit"], "floor", figure.get("floor"))
    if "ST_FIGURES" in os.environ:
        with Path(os.environ["ST_FIGURES"]).open("a") as file:
            file.writelines(json.dumps(figure) + "\n" for figure in figures)


if __name__ == "__main__":
    main()
