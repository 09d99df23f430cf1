"""Opening what came: the collector, and what stays of objects that were called for within."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from .conftest import Serve

torch = pytest.importorskip("torch", reason="no torch here")

ENDPOINTS = """
import torch

@share(managed=True)
def many():
    return torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(100)))

@share(cache=False)
def many_anew():
    return {"x": [torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(100)))]}

@share(cache=False, managed=True)
def new():
    return torch.zeros(4)

@share(managed=True, key="arguments")
def sized(size):
    return torch.zeros(size)
"""


@pytest.mark.parametrize("endpoint", ["many", "many_anew"])
def test_no_collection_comes_within_a_call(serve_apart: Serve, endpoint: str) -> None:
    """Thousands of objects are made, and then the handle on them."""
    client = serve_apart(ENDPOINTS).client()
    client.call(endpoint)
    runs: list[tuple[str, Any]] = []
    inside = False

    def note(phase: str, info: Any) -> None:
        if phase == "start" and inside:
            runs.append(info)

    gc.collect()
    gc.callbacks.append(note)
    try:
        for _ in range(30):
            inside = True
            made = client.call(endpoint)
            inside = False
            del made
    finally:
        gc.callbacks.remove(note)
    assert runs == []
    assert gc.isenabled()


def test_the_collector_stays_as_it_was(serve_apart: Serve) -> None:
    """Also where it is off, and where opening fails."""
    client = serve_apart(ENDPOINTS).client()
    gc.disable()
    try:
        client.call("many")
        assert not gc.isenabled()
    finally:
        gc.enable()
    with pytest.raises(Exception, match="missing"):
        client.call("missing")
    assert gc.isenabled()


def test_what_nobody_can_find_again_is_not_kept(serve: Serve) -> None:
    """Each local call of an uncached endpoint makes an object; its caller alone has it."""
    served = serve(ENDPOINTS)
    client = served.client()
    served.run("[provider.call('new') for _ in range(5)]")
    assert client.get_server_info()["stats"]["objects"] == 0


def test_what_took_its_place_lets_go_of_it(serve: Serve) -> None:
    """One object a key: one that a client had forgotten goes when there is another."""
    served = serve(ENDPOINTS)
    client = served.client()
    for _ in range(4):
        served.run("mine = provider.call('sized', 3)")
        client.invalidate_call_cache("sized", 3)
    assert client.get_server_info()["stats"]["objects"] == 1
    served.run("provider.call('sized', 3); provider.call('sized', 4)")
    assert client.get_server_info()["stats"]["objects"] == 2
