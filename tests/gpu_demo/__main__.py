"""The demo's third part: frames on a GPU between processes, one of them killed on the way.

``python tests/gpu_demo`` needs the wheel, a torch that has a GPU, and NumPy; ``cargo xtask demo
--gpu`` prepares the first. A camera fills frames in place with kernels of torch, a filter reads and
fills them in place, and a watcher that knows nothing of CUDA reads the camera's frames from the
mirror in host memory. It ends with an error if anything that it prints is not so.
"""

from __future__ import annotations

import argparse
import sys

import roles
from stage import Stage, Wrong


def main() -> int:
    """Play, and say how it went."""
    parser = argparse.ArgumentParser(prog="tests/gpu_demo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long it plays")
    parser.add_argument("--device", default="cuda:0", help="the GPU that the frames are on")
    parser.add_argument("--role", choices=sorted(roles.ALL), help=argparse.SUPPRESS)
    parser.add_argument("--streams", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role is not None:
        roles.ALL[given.role](*given.streams)
        return 0
    try:
        Stage(given.device, given.seconds).play()
    except Wrong as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
