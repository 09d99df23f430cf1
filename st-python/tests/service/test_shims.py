"""The helpers that old programs import by path, logging, and what importing does."""

from __future__ import annotations

import logging
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import shared_tensor
from shared_tensor import errors, transport, utils


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    import os

    return subprocess.run(
        [sys.executable, "-c", code],
        check=True, capture_output=True, text=True, env={**os.environ, **env},
    )  # fmt: skip


def test_constants() -> None:
    """The names of encodings and paths."""
    assert utils.CONTROL_ENCODING == "control_pickle"
    assert utils.TORCH_ENCODING == "torch_cuda_ipc"
    assert utils.TRANSFORMERS_MODEL_ENCODING == "torch_transformers_pretrained_model"
    assert utils.SHARED_TENSOR_BASE_PATH_ENV == "SHARED_TENSOR_BASE_PATH"
    assert utils.DEFAULT_SOCKET_BASE_PATH == "/tmp/shared-tensor"
    with pytest.raises(AttributeError):
        _ = utils.NOTHING


def test_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The formula of the socket's path."""
    assert utils.resolve_runtime_socket_path("/a/b", 3) == "/a/b-3.sock"
    assert utils.resolve_runtime_socket_path("/a/b").startswith("/a/b-")
    assert utils.resolve_device_index(2) == 2
    with pytest.raises(errors.SharedTensorConfigurationError, match=">= 0"):
        utils.resolve_device_index(-1)
    with pytest.raises(errors.SharedTensorConfigurationError, match=">= 0"):
        shared_tensor.SharedTensorClient(device_index=-1)
    assert utils.resolve_server_base_path("/x") == "/x"
    monkeypatch.setenv("SHARED_TENSOR_BASE_PATH", "/y")
    assert utils.resolve_server_base_path("/x") == "/y"
    # Clients do not ask the environment.
    assert shared_tensor.SharedTensorClient("/x", device_index=0).socket_path == "/x-0.sock"
    file = tmp_path / "file"
    file.touch()
    utils.unlink_socket_path(str(file))
    utils.unlink_socket_path(str(file))
    assert not file.exists()


@pytest.mark.parametrize("value", [None, 1, "x", b"x", {1, 2}, {"a": None}, [None], {1: 2}, 1j])
def test_what_no_endpoint_may_return(value: Any) -> None:
    """Plain values are no results."""
    with pytest.raises(errors.SharedTensorCapabilityError, match="Unsupported payload type"):
        utils.validate_payload_for_transport(value, allow_dict_keys=True)


def test_what_may_be_passed() -> None:
    """Plain values are arguments."""
    for value in (None, 1, 1.5, "x", b"x", True, [], (), {}, [None, {"a": {1: (2,)}}]):
        utils.validate_call_payload_for_transport(value)
    for empty in ([], (), {}):
        utils.validate_payload_for_transport(empty)
    for value in (set(), object(), 1j, [set()]):
        with pytest.raises(errors.SharedTensorCapabilityError, match="Unsupported payload type"):
            utils.validate_call_payload_for_transport(value)


def test_writing_down() -> None:
    """Plain values as bytes, and back; nothing else comes out of bytes."""
    assert utils.serialize_payload(()) == ("control_pickle", b"\x80\x05).")
    assert utils.serialize_empty_payload({}) == ("control_pickle", b"\x80\x05}\x94.")
    encoding, args, kwargs = utils.serialize_call_payloads((1, "x"), {"a": [None]})
    assert encoding == "torch_cuda_ipc"
    assert utils.deserialize_payload(encoding, args) == (1, "x")
    assert utils.deserialize_payload(encoding, kwargs.hex()) == {"a": [None]}
    assert utils.serialize_call_payloads((), {})[0] == "control_pickle"
    hostile = b"cos\nsystem\n(S'true'\ntR."
    for encoding, content in (
        ("nonsense", b""),
        ("control_pickle", hostile),
        ("control_pickle", b"x"),
    ):
        with pytest.raises(errors.SharedTensorSerializationError):
            utils.deserialize_payload(encoding, content)
    assert utils.payload_uses_cuda([1, {"a": (None,)}]) is False


def test_messages() -> None:
    """A length and a plain value."""
    message = {"method": "ping", "params": {}}
    encoded = transport.encode_message(message)
    assert transport.FRAME_HEADER.unpack(encoded[:4]) == (len(encoded) - 4,)
    assert transport.decode_message(encoded[4:]) == message
    left, right = socket.socketpair()
    with left, right:
        thread = threading.Thread(target=transport.send_message, args=(left, message))
        thread.start()
        assert transport.recv_message(right) == message
        thread.join()
        left.sendall(struct.pack("!I", 0xFFFFFFFF))
        with pytest.raises(errors.SharedTensorProtocolError, match="announced"):
            transport.recv_message(right)
        left.sendall(b"abc")
        assert transport.recv_exact(right, 3) == b"abc"
        left.close()
        with pytest.raises(errors.SharedTensorProtocolError, match="closed"):
            transport.recv_exact(right, 1)
    with pytest.raises(errors.SharedTensorProtocolError):
        transport.decode_message(b"cos\nsystem\n(S'true'\ntR.")


def test_the_logger() -> None:
    """By default it writes to the standard error stream, by itself."""
    code = """
import logging, shared_tensor
logger = logging.getLogger("shared_tensor")
print(len(logger.handlers), logger.level, logger.propagate)
logging.getLogger("shared_tensor.some").warning("told")
"""
    done = python(code)
    assert done.stdout.split() == ["1", "20", "False"]
    assert done.stderr == "[shared_tensor] WARNING shared_tensor.some: told\n"
    assert python(code, SHARED_TENSOR_LOG_LEVEL="debug").stdout.split()[1] == "10"
    assert python(code, SHARED_TENSOR_LOG_LEVEL="nonsense").stdout.split()[1] == "20"
    own = "import logging; logging.getLogger('shared_tensor').addHandler(logging.NullHandler())\n"
    assert python(own + code).stdout.split() == ["1", "0", "True"]


def test_the_logger_outlives_its_stream() -> None:
    """A closed stream is no reason to complain."""
    code = """
import logging, sys, shared_tensor
sys.stderr.close()
logging.getLogger("shared_tensor").error("nobody hears")
"""
    assert python(code).stderr == ""


def test_importing_loads_little() -> None:
    """Neither the service nor what it needs is loaded by those who use streams."""
    loaded = python(
        "import sys, shared_tensor\n"
        "heavy = 'torch', 'numpy', 'asyncio', 'shared_tensor.client'\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "shared_tensor.client, shared_tensor.SharedTensorProvider, shared_tensor.aio\n"
        "print([name for name in ('torch', 'numpy', 'pickle') if name in sys.modules])"
    )
    assert loaded.stdout.split() == ["[]", "[]"]
    assert logging.getLogger("shared_tensor").handlers


def test_clients_load_little(tmp_path: Path) -> None:
    """Whoever asks for a path, or whether a server is there, loads no torch for it."""
    loaded = python(
        "import sys, shared_tensor\n"
        f"client = shared_tensor.SharedTensorClient({str(tmp_path / 'b')!r})\n"
        "assert client.socket_path.endswith('-0.sock') and client.ping() is False\n"
        "print([name for name in ('torch', 'numpy', 'pickle') if name in sys.modules])"
    )
    assert loaded.stdout == "[]\n"


def test_no_such_name() -> None:
    """A name that there is not is an AttributeError."""
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = shared_tensor.Nothing
