"""A model that is built once and used by many processes.

shared-tensor serve service:provider      in one terminal, in this folder
python service.py                         in any number of others
"""

from __future__ import annotations

import os

import torch

from shared_tensor import SharedObjectHandle, SharedTensorClient, SharedTensorProvider

BASE_PATH = os.environ.get("SHARED_TENSOR_BASE_PATH", "/tmp/shared-tensor-models")

provider = SharedTensorProvider(BASE_PATH, execution_mode="server", device="cpu")


@provider.share(
    execution="task",
    managed=True,
    concurrency="serialized",
    cache_format_key="model:{input_dim}:{output_dim}",
)
def load_linear_model(input_dim: int = 16, output_dim: int = 4) -> torch.nn.Module:
    """Build a model; in earnest this reads gigabytes from a disk."""
    torch.manual_seed(input_dim * 1000 + output_dim)
    return torch.nn.Linear(input_dim, output_dim).eval()


def main() -> None:
    """Borrow the model and compute with it."""
    with SharedTensorClient(BASE_PATH, device="cpu") as client:
        handle: SharedObjectHandle[torch.nn.Module] = client.call("load_linear_model", input_dim=8)
        with handle as held, torch.no_grad():
            out = held.value(torch.ones(1, 8))
            # As long as anybody holds it, every call gets this one; later it is built anew.
            with client.call("load_linear_model", input_dim=8) as again:
                info = held.get_object_info()
                is_same = again.object_id == held.object_id
        assert info is not None
        print("output:", [round(number, 4) for number in out[0].tolist()])
        print("references while it was held:", info["refcount"])
        print("the same object for both calls:", is_same)


if __name__ == "__main__":
    main()
