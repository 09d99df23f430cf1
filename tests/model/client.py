"""A process that uses the model: ``python tests/model/client.py BASE_PATH``.

It is told lines, and answers each with one line of JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import memory
import minilm
from sentences import SENTENCES

from shared_tensor import AsyncSharedTensorClient, SharedTensorClient

_REOPENS = 30


class Client:
    """What a client does when it is told to."""

    def __init__(self, base_path: str) -> None:
        # Imported before anything is measured: both are needed whoever builds the model.
        import torch
        import transformers

        self._libraries = (torch.__version__, transformers.__version__)
        self._client = AsyncSharedTensorClient(base_path, device="cpu")
        self._caller = SharedTensorClient(base_path, device="cpu")
        self._words = minilm.tokenizer()
        self._model: Any = None

    def prepare(self) -> None:
        """Be as a process is that has used a model of this kind from this server, and has none."""
        handle = self._client.wait(self._client.submit("small_model"))
        minilm.embed(handle.value, self._words, SENTENCES)
        handle.release()

    def weigh(self) -> dict[str, int]:
        """Say what this process's memory is."""
        return memory.of_this_process()

    def open(self) -> dict[str, Any]:
        """Ask for the model, with whoever else asks, and see how it comes along."""
        seen: list[str] = []
        begun = time.perf_counter()
        task = self._client.submit("sentence_model")

        def look(info: Any) -> None:
            note = (info.metadata.get("progress") or {}).get("note")
            if note and note not in seen:
                seen.append(note)

        handle = self._client.wait(task, callback=look)
        self._model = handle.value
        self._handle = handle
        return {"seconds": time.perf_counter() - begun, "progress": seen}

    def embed(self) -> list[list[int]]:
        """Embed the sentences; every bit of the vectors."""
        return minilm.embed(self._model, self._words, SENTENCES).view(dtype=_bits()).tolist()

    def reopen(self) -> dict[str, Any]:
        """Open the model again, as a request handler that keeps nothing would."""
        times = []
        for _ in range(_REOPENS):
            begun = time.perf_counter()
            handle = self._caller.call("sentence_model")
            _ = handle.value
            times.append(time.perf_counter() - begun)
            handle.release()
        return {"median": statistics.median(times), "worst": max(times)}


def _bits() -> Any:
    import torch

    return torch.int32


def main() -> None:
    """Do what is told until the stage is gone."""
    client = Client(sys.argv[1])
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        answer = getattr(client, line.strip())()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
