"""The roles of the demo in Python: ``python tests/demo --role ROLE``.

Started by the stage, ``st-demo --python``, which speaks to each role in lines: what a role is told
and answers is the same as of the roles in Rust, see ``tests/src/demo``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import place
from commands import Commands, Orphaned, refuse
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
    try:
        role(given).obey(commands)
    except Orphaned:
        # Nobody else is left to do it.
        place.unlink_stream()
    except FileNotFoundError as missing:
        # The stage was gone before this role began, and another one has unlinked the stream; or it
        # is there, and hears this.
        refuse(missing)
        sys.exit(1)


def role(given: argparse.Namespace) -> Writer | Reader:
    """Give the role that is to be played."""
    if given.role == "writer":
        return Writer(given.number, given.photographs, place.open_stream())
    return Reader(given.role, place.open_stream)


if __name__ == "__main__":
    main()
