"""What ``copy=False`` costs: a tensor of 1 GiB that stays where torch made it, opened by handle.

in_place.py: rounds, each with a server and a client of its own. in_place.py BASE serve and
in_place.py BASE call are these. Figures go to the file of ST_FIGURES.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import rows  # noqa: E402
import summary  # noqa: E402

ROUNDS = 3
SAMPLES = 200


def serve(base: str) -> None:
    """Lend the tensor."""
    import torch

    from shared_tensor import SharedTensorProvider, SharedTensorServer

    provider = SharedTensorProvider(base, execution_mode="server", device_index=0)
    made = torch.arange(1 << 28, device="cuda", dtype=torch.int32)

    @provider.share(cache=False, copy=False)
    def lent() -> torch.Tensor:
        return made

    SharedTensorServer(provider).start(blocking=True)


def call(base: str) -> None:
    """Open it again and again, and look whether it is the tensor."""
    import torch
    from client import connected

    from gpu import calls

    rows.tell_where()
    client = connected(base)
    torch.zeros(1, device="cuda")
    about = {"ordering": rows.ordering(), "device": rows.device()}
    name = summary.name_of_in_place("again")
    rows.begin("calls")
    with calls.noted("bench", name, devices=[rows.device()], ordering=rows.ordering()):
        found = rows.timed(lambda: client.call("lent"), SAMPLES)
    value = client.call("lent")
    wrong = int((value != torch.arange(1 << 28, device="cuda", dtype=torch.int32)).sum())
    if wrong:
        raise ValueError(f"{wrong} elements are not the server's")
    rows.say({**found, **about})


def main() -> None:
    """Measure."""
    from large import serving, write
    from watched import Watched

    found = []
    for _ in range(ROUNDS):
        with serving("in_place.py", "serve") as (base, env):
            command = [sys.executable, str(HERE / "in_place.py"), base, "call"]
            found.append(Watched("caller", command, lambda: 60.0, 60.0, env).found())
    if any(it["is_late"] for it in found):
        raise TimeoutError("a tensor was asked for in vain")
    write(summary.of_in_place(found))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        {"serve": serve, "call": call}[sys.argv[2]](sys.argv[1])
    else:
        main()
