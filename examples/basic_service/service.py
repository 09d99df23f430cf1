"""Tensors in, tensors out: short calls whose results are not kept.

python service.py server          in one terminal
python service.py client          in another one
"""

from __future__ import annotations

import argparse

import torch

from shared_tensor import SharedTensorClient, SharedTensorProvider, SharedTensorServer

DEVICE = "cpu"


def make_provider(base_path: str) -> SharedTensorProvider:
    """Register the endpoints."""
    provider = SharedTensorProvider(base_path, execution_mode="server", device=DEVICE)

    @provider.share(cache=False)
    def echo_tensor(tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    @provider.share(cache=False)
    def scale_tensor(tensor: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
        return tensor * factor

    @provider.share(cache=False)
    def clone_and_shift(tensor: torch.Tensor, by: int) -> dict[str, torch.Tensor]:
        return {"clone": tensor.clone(), "shifted": tensor.roll(by)}

    return provider


def serve(base_path: str) -> None:
    """Answer until told to stop (Ctrl-C, SIGTERM)."""
    SharedTensorServer(make_provider(base_path)).start(blocking=True)


def ask(base_path: str) -> None:
    """Use what the server offers."""
    with SharedTensorClient(base_path, device=DEVICE) as client:
        tensor = torch.arange(4.0)
        same = client.call("echo_tensor", tensor)
        same[0] = 100  # the same memory in three places: here, in the server, and here again
        print("echoed in place:", tensor.tolist())
        print("scaled:", client.call("scale_tensor", tensor, factor=0.5).tolist())
        both = client.call("clone_and_shift", tensor, by=1)
        print("cloned and shifted:", {name: it.tolist() for name, it in both.items()})


def main() -> None:
    """Run one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("server", "client"))
    parser.add_argument("--base-path", default="/tmp/shared-tensor-basic")
    options = parser.parse_args()
    (serve if options.role == "server" else ask)(options.base_path)


if __name__ == "__main__":
    main()
