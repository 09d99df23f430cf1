"""One script for both sides: the environment says which one it is.

SHARED_TENSOR_ENABLED=1 SHARED_TENSOR_ROLE=server python demo.py
SHARED_TENSOR_ENABLED=1 python demo.py
python demo.py                                          alone, without a server
"""

from __future__ import annotations

import os
import sys

import torch

from shared_tensor import SharedTensorProvider

provider = SharedTensorProvider("/tmp/shared-tensor-demo", device="cpu")


class Head(torch.nn.Module):
    """A class of this script, which both sides have."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(size, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute."""
        return self.linear(x).softmax(-1)


@provider.share(cache_format_key="head:{size}")
def load_head(size: int = 4) -> torch.nn.Module:
    """Build it, wherever this runs."""
    torch.manual_seed(0)
    print("building in", os.getpid(), flush=True)
    return Head(size).eval()


def main() -> None:
    """Use it; there is no branch for who we are."""
    head = load_head(size=4)
    with torch.no_grad():
        print("result:", [round(it, 4) for it in head(torch.ones(4)).tolist()], flush=True)


if __name__ == "__main__":
    main()
    if provider.execution_mode == "server":
        sys.stdin.read()  # for as long as clients are to be served
