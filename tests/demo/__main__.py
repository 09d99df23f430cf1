"""The roles of the demo in Python: ``python tests/demo --role ROLE``.

Started by the stage, ``st-demo --python``, which speaks to each role in lines: what a role is told
and answers is the same as of the roles in Rust, see ``tests/src/demo``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import place
from commands import Commands, Orphaned
from eye import MANNERS
from reader import Reader
from writer import Writer


def main() -> None:
    """Play one role until the stage ends it, or is gone."""
    parser = argparse.ArgumentParser(prog="tests/demo", description=__doc__)
    parser.add_argument("--role", required=True, choices=("writer", *MANNERS))
    parser.add_argument("--number", type=int, default=1, help="which writer it is")
    parser.add_argument("photographs", nargs="*", type=Path)
    given = parser.parse_args()
    commands = Commands()
    with place.open_stream() as stream:
        try:
            if given.role == "writer":
                Writer(given.number, given.photographs, stream, commands).obey()
            else:
                Reader(given.role, place.open_stream).obey(commands)
        except Orphaned:
            # Nobody else is left to do it.
            stream.unlink()


if __name__ == "__main__":
    main()
