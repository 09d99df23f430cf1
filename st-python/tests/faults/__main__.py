"""Play scenarios and print what happened.

``python -m faults [LIBRARY ...] [WORD ...]`` plays every fault, or those whose key holds a word, on
all libraries or on one of ``pyshmem``, ``streams``, ``native``, and prints a table.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from . import catalogue, ground, library
from .play import Unplayable, play
from .stage import Stage

LIBRARIES = (catalogue.PEER, catalogue.CONTRACT, catalogue.NATIVE)


def act(key: str, played_on: str, name: str, folder: str) -> None:
    """Play one scenario here and now, and print its verdict."""
    ground.die_with_parent()
    # Before NumPy is loaded: only a process of one thread may enter a user namespace.
    try:
        ground.own_mounts()
        ground.mount_shm("4g")
        is_own = True
    except OSError:
        is_own = False
    fault = catalogue.load()[key]
    if ground.OWN_SHM in fault.needs and not is_own:
        # It would list, damage or remove what others have there.
        sys.exit(f"{key} is not played on a /dev/shm that others use")
    verdict = fault.scenario(Stage(library.load(played_on), name, Path(folder)))
    print("verdict", json.dumps({"shows": verdict.shows, "said": verdict.said}), flush=True)


def table(words: list[str]) -> None:
    """Play what the words select and print a row for each play."""
    chosen = {word for word in words if word in LIBRARIES} or set(LIBRARIES)
    parts = [word for word in words if word not in LIBRARIES] or [""]
    print("| fault | on | shows | what happened |\n|---|---|---|---|")
    for fault in catalogue.load().values():
        if not any(part in fault.key for part in parts):
            continue
        played = ((catalogue.PEER,) if fault.exhibited else ()) + fault.libraries
        for played_on in [it for it in played if it in chosen]:
            print(f"| {fault.key} | {played_on} | {result(fault, played_on)} |", flush=True)


def result(fault: catalogue.Fault, played_on: str) -> str:
    """Play one fault; whether it shows and what happened."""
    if lacking := ground.lacking(fault.needs):
        return f"not played | needs {lacking}"
    try:
        verdict = play(fault, played_on)
    except Unplayable as failure:
        return f"FAILED | {failure}"
    return f"{'yes' if verdict.shows else 'no'} | {verdict.said}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["act"]:
        act(*sys.argv[2:])
    else:
        table(sys.argv[1:])
