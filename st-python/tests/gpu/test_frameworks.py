"""Tensors of the service in CuPy and JAX and theirs in the service, by DLPack."""

from __future__ import annotations

from typing import Any

import pytest

from gpu.served import Served
from shared_tensor.errors import SharedTensorCapabilityError

pytestmark = pytest.mark.gpu

SHARES = """
import importlib

@share
def kept():
    return torch.arange(1024.0, device=device)

@share(cache=False)
def total(value):
    assert type(value) is torch.Tensor, type(value)
    return value.sum().reshape(1)

@share(cache=False)
def echo(value):
    return value

@share(cache=False)
def made(library):
    # What the server's own library computed, not yet done when it is returned.
    xp = importlib.import_module(library)
    return xp.arange(4096, dtype="float32") * 2
"""


@pytest.fixture
def cupy(torch: Any) -> Any:
    """Give CuPy, where it finds the device too."""
    del torch
    found = pytest.importorskip("cupy")
    if found.cuda.runtime.getDeviceCount() == 0:
        pytest.skip("CuPy finds no device")
    return found


@pytest.fixture
def jax(torch: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give JAX on the GPU, which is to leave memory to others."""
    del torch
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    found = pytest.importorskip("jax")
    try:
        found.devices("gpu")
    except RuntimeError as error:
        pytest.skip(f"JAX finds no GPU: {error}")
    return found


def test_cupy_reads_what_came_where_it_lies(torch: Any, served: Served, cupy: Any) -> None:
    """The same address, no copy."""
    served.server(SHARES)
    came = served.client().call("kept")
    seen = cupy.from_dlpack(came)
    assert seen.data.ptr == came.data_ptr()
    assert float(seen.sum()) == float(came.sum())
    del came
    assert float(seen[-1]) == 1023.0


def test_arrays_of_cupy_are_passed_and_returned(torch: Any, served: Served, cupy: Any) -> None:
    """As tensors; one that looks at memory of the service is passed where it lies."""
    served.server(SHARES)
    client = served.client()
    for _ in range(3):
        assert float(client.call("total", cupy.ones(1 << 16, dtype="float32"))) == 1 << 16
    came = client.call("made", "cupy")
    assert type(came) is torch.Tensor
    assert came.tolist() == [2.0 * i for i in range(4096)]
    # What may be written to; the kept one, which may not, would be copied.
    assert client.call("echo", cupy.from_dlpack(came)).data_ptr() == came.data_ptr()
    nested = client.call("echo", {"a": [cupy.full(3, 7.0)]})
    assert nested["a"][0].tolist() == [7.0] * 3


def test_arrays_of_the_host_are_refused(torch: Any, served: Served) -> None:
    """By name, with what to do."""
    numpy = pytest.importorskip("numpy")
    served.server(SHARES)
    with pytest.raises(Exception, match="ndarray"):
        served.client().call("total", numpy.ones(3))


def test_jax_reads_what_came_where_it_lies(torch: Any, served: Served, jax: Any) -> None:
    """The same address, no copy."""
    served.server(SHARES)
    came = served.client().call("kept")
    seen = jax.dlpack.from_dlpack(came)
    assert seen.unsafe_buffer_pointer() == came.data_ptr()
    assert float(seen.sum()) == float(came.sum())


def test_arrays_of_jax_are_passed_and_returned(torch: Any, served: Served, jax: Any) -> None:
    """As tensors, which are copies: JAX never changes an array."""
    served.server(SHARES, XLA_PYTHON_CLIENT_PREALLOCATE="false")
    client = served.client()
    sent = jax.numpy.ones(1 << 16, dtype="float32") * 3
    assert float(client.call("total", sent)) == 3 * (1 << 16)
    came = client.call("echo", sent)
    came.zero_()
    assert float(sent.sum()) == 3 * (1 << 16)
    came = client.call("made", "jax.numpy")
    assert came.tolist() == [2.0 * i for i in range(4096)]


def test_arrays_of_jax_that_are_deleted_are_refused(torch: Any, served: Served, jax: Any) -> None:
    """By name, and with what to do."""
    del torch
    served.server(SHARES)
    gone = jax.numpy.ones(8, dtype="float32")
    gone.delete()
    with pytest.raises(SharedTensorCapabilityError, match="not deleted or donated"):
        served.client().call("total", gone)


def test_tensors_of_a_pool_stay_beside_arrays(torch: Any, served: Served, cupy: Any) -> None:
    """An array of another library is copied, what torch keeps is not."""
    del cupy
    server = served.server(
        """
import shared_tensor
with shared_tensor.cuda.pool(device):
    weights = torch.arange(1 << 20, device=device)
where = weights.data_ptr()

@share(cache=False)
def both():
    import cupy
    return weights, cupy.arange(64, dtype="float32")
"""
    )
    came, array = served.client().call("both")
    assert server.run("weights.data_ptr() == where")
    assert torch.equal(came, torch.arange(1 << 20, device="cuda"))
    assert array.tolist() == [float(i) for i in range(64)]
