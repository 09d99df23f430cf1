"""Tasks: submit, go on, watch, wait; with threads and with coroutines.

python service.py server          in one terminal
python service.py client          in another one
"""

from __future__ import annotations

import argparse
import asyncio
import time

import torch

import shared_tensor
from shared_tensor import (
    AsyncSharedTensorClient,
    SharedTensorProvider,
    SharedTensorServer,
    TaskInfo,
)

DEVICE = "cpu"


def make_provider(base_path: str) -> SharedTensorProvider:
    """Register the endpoints, which run as tasks."""
    provider = SharedTensorProvider(
        base_path, execution_mode="server", device=DEVICE, execution="task"
    )

    @provider.share(cache_format_key="delayed:{size}")
    def build_delayed_model(size: int = 8, delay: float = 0.1) -> torch.nn.Module:
        layers = []
        for step in range(4):
            time.sleep(delay / 4)
            layers.append(torch.nn.Linear(size, size))
            shared_tensor.progress(step + 1, 4, f"layer {step + 1}")
        return torch.nn.Sequential(*layers).eval()

    return provider


def ask(base_path: str) -> None:
    """Wait for a task in a thread of one's own."""

    def watch(info: TaskInfo) -> None:
        print("task:", info.status.value, info.metadata.get("progress", {}).get("note", ""))

    with AsyncSharedTensorClient(base_path, device=DEVICE) as client:
        task_id = client.submit("build_delayed_model", size=8, delay=0.2)
        model = client.wait_for_task(task_id, timeout=30, callback=watch)
        print("layers:", len(model))


async def ask_at_once(base_path: str) -> None:
    """Wait for several in coroutines: no thread is blocked."""
    async with shared_tensor.aio.Client(base_path, device=DEVICE) as client:
        sizes = (4, 8, 16)
        models = await asyncio.gather(
            *(client.call("build_delayed_model", size=size) for size in sizes)
        )
        print("sizes:", [model[0].in_features for model in models])


def main() -> None:
    """Run one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("server", "client"))
    parser.add_argument("--base-path", default="/tmp/shared-tensor-tasks")
    options = parser.parse_args()
    if options.role == "server":
        SharedTensorServer(make_provider(options.base_path)).start(blocking=True)
    else:
        ask(options.base_path)
        asyncio.run(ask_at_once(options.base_path))


if __name__ == "__main__":
    main()
