"""The process that has the model: ``python tests/model/server.py BASE_PATH``."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import memory
import minilm
from sentences import SENTENCES

import shared_tensor
from shared_tensor import SharedTensorProvider, SharedTensorServer

BASE_PATH = sys.argv[1]

provider = SharedTensorProvider(BASE_PATH, device="cpu", execution_mode="server")
builds = 0
seconds = 0.0
# Every thread that computes gets scratch memory, which it keeps: here it is the same one each time.
computing = ThreadPoolExecutor(1)


def embedded(model, sentences):
    """Embed on the thread that does this."""
    return computing.submit(minilm.embed, model, minilm.tokenizer(), sentences).result()


@provider.share(execution="task", managed=True)
def sentence_model():
    """Build the model, once for all who ask."""
    global builds, seconds
    builds += 1
    begun = time.perf_counter()
    shared_tensor.progress(0, 2, "reading the weights")
    model = minilm.build()
    shared_tensor.progress(1, 2, "trying it")
    embedded(model, SENTENCES[:1])
    shared_tensor.progress(2, 2, "done")
    seconds = time.perf_counter() - begun
    return model


@provider.share(cache=False)
def embedded_by_the_server():
    """Embed the sentences here, to compare with."""
    model = provider.call("sentence_model")
    return embedded(model, SENTENCES)


@provider.share(execution="task", managed=True)
def small_model():
    """Build what everybody warms up with."""
    model = minilm.build_small()
    embedded(model, SENTENCES[:1])
    return model


@provider.share(cache=False)
def prepare():
    """Embed here too with what was built to warm up, and let go of it."""
    embedded(provider.call("small_model"), SENTENCES)
    provider.invalidate_endpoint_cache("small_model")


@provider.share(cache=False, plain=True)
def known():
    """Say how often the model was built, and how long that took."""
    return {"builds": builds, "seconds": seconds}


@provider.share(cache=False, plain=True)
def weigh():
    """Say what this process's memory is."""
    return memory.of_this_process()


if __name__ == "__main__":
    with SharedTensorServer(provider):
        print("ready", flush=True)
        sys.stdin.readline()
