"""The process that has the model: ``python tests/model/server.py BASE_PATH``."""

from __future__ import annotations

import sys
import time

import memory
import minilm
from sentences import SENTENCES

import shared_tensor
from shared_tensor import SharedTensorProvider, SharedTensorServer

BASE_PATH = sys.argv[1]

provider = SharedTensorProvider(BASE_PATH, device="cpu", execution_mode="server")
builds = 0
seconds = 0.0


@provider.share(execution="task", managed=True)
def sentence_model():
    """Build the model, once for all who ask."""
    global builds, seconds
    builds += 1
    begun = time.perf_counter()
    shared_tensor.progress(0, 2, "reading the weights")
    model = minilm.build()
    shared_tensor.progress(1, 2, "trying it")
    minilm.embed(model, minilm.tokenizer(), SENTENCES[:1])
    shared_tensor.progress(2, 2, "done")
    seconds = time.perf_counter() - begun
    return model


@provider.share(cache=False)
def embedded_by_the_server():
    """Embed the sentences here, to compare with."""
    model = provider.call("sentence_model")
    return minilm.embed(model, minilm.tokenizer(), SENTENCES)


@provider.share(cache=False)
def prepare() -> None:
    """Be as a process is that has used torch, but for the model."""
    minilm.warm_up()


@provider.share(cache=False, plain=True)
def known():
    """Say how often the model was built, how long that took, and what this process's memory is."""
    return {"builds": builds, "seconds": seconds, **memory.of_this_process()}


if __name__ == "__main__":
    with SharedTensorServer(provider):
        print("ready", flush=True)
        sys.stdin.readline()
