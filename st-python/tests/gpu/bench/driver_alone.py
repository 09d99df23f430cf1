"""What the driver takes to move memory into chunks, by a program in C, `floor/move.c`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import watched

GIB = 1 << 30
PATIENCE_S = 60.0


def moving(count: int) -> dict[str, Any]:
    """Ask it about so many GiB; times are in microseconds."""
    program = Path(os.environ["ST_PEERS"]).parent / "programs/floor-move"
    command = [str(program), str(count), str(GIB)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=PATIENCE_S).stdout
    found: dict[str, Any] = json.loads(out)
    times = {name: value for name, value in found.items() if isinstance(value, float)}
    said = ", ".join(f"{name} {value / 1000:.1f}" for name, value in times.items())
    watched.tell(f"the driver alone, ms for {count} GiB: {said}")
    return found
