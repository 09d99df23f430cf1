"""Minutes of coming, going and dying in Python: ``python tests/soak [--seconds N] [--seed S]``.

One stream, a writer and several readers that stay, and others that are killed at random; every
frame is verified. It fails if a frame is wrong, if somebody hangs or ends by itself, if the
descriptors, threads or memory of those who stay grow, or if anything is left.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from board import Board, Count
from pattern import WrongFrame
from role import Ground


def main() -> None:
    """Run the stage, or one of the roles that it starts."""
    parser = argparse.ArgumentParser(
        prog="tests/soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("name", nargs="?", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        play(given.role, given.name)
        return
    from stage import Soak

    print(f"{given.seconds:g} seconds, seed {given.seed}", flush=True)
    random.seed(given.seed)
    soak = Soak(given.seconds)
    soak.run()
    print(*soak.lines(), sep="\n")
    sys.exit(bool(soak.violations))


def play(role: str, name: str) -> None:
    """Play the part ``duty:place:seed:board:stage``."""
    duty, *numbers = role.split(":")
    place, seed, file, stage = map(int, numbers)
    from duties import DUTIES

    board = Board(file)
    ground = Ground(name, board, board.row(place), random.Random(seed))
    try:
        DUTIES[duty](ground).play(stage)
    except WrongFrame as wrong:
        ground.row.add(Count.WRONG)
        sys.exit(f"{duty}: {wrong}")


if __name__ == "__main__":
    main()
