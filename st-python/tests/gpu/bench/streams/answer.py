"""The other process of a turn: reads each frame, and writes it as the answer, until it is killed.

answer.py SIDE PREFIX DEVICE
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from sides import PATIENCE_S, Side  # noqa: E402


def main() -> None:
    """Answer."""
    name, prefix, device = sys.argv[1:]
    side = Side(name, device)
    there, back = side.open(f"{prefix}-there"), side.open(f"{prefix}-back")
    print("ready", flush=True)
    count = 0
    out: Any = None
    while True:
        out = side.read_after(there, count, PATIENCE_S, out)
        back.write(out)
        count += 1


if __name__ == "__main__":
    main()
