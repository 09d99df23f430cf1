"""Messages of the 0.2 releases, for programs that import these helpers.

Servers and clients of this release do not speak this language. Reading builds plain values only.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from shared_tensor._service import plain
from shared_tensor.errors import SharedTensorProtocolError

if TYPE_CHECKING:
    import socket

__all__ = [
    "FRAME_HEADER",
    "decode_message",
    "encode_message",
    "recv_exact",
    "recv_message",
    "send_message",
]

FRAME_HEADER = struct.Struct("!I")

#: Nothing longer is received, whatever its header announces.
_BYTES_MAX = 64 << 20


def encode_message(payload: Any) -> bytes:
    """Write a plain value down, with its length before it."""
    content = plain.dumps(payload)
    return FRAME_HEADER.pack(len(content)) + content


def decode_message(data: bytes) -> Any:
    """Read what follows the length.

    Raises
    ------
    SharedTensorProtocolError
        If it is no plain value.
    """
    try:
        return plain.loads(data)
    except Exception as error:
        raise SharedTensorProtocolError(f"the message cannot be read: {error}") from error


def recv_exact(sock: socket.socket, size: int) -> bytes:
    """Receive exactly `size` bytes.

    Raises
    ------
    SharedTensorProtocolError
        If the connection ends before.
    """
    parts: list[bytes] = []
    missing = size
    while missing:
        part = sock.recv(min(missing, 1 << 20))
        if not part:
            raise SharedTensorProtocolError(
                f"the connection closed {missing} bytes before the end of {size}"
            )
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def recv_message(sock: socket.socket) -> Any:
    """Receive one message.

    Raises
    ------
    SharedTensorProtocolError
        If it is too long, ends early, or is no plain value.
    """
    (size,) = FRAME_HEADER.unpack(recv_exact(sock, FRAME_HEADER.size))
    if size > _BYTES_MAX:
        raise SharedTensorProtocolError(
            f"a message of {size} bytes was announced; at most {_BYTES_MAX} are received"
        )
    return decode_message(recv_exact(sock, size))


def send_message(sock: socket.socket, payload: Any) -> None:
    """Send one message."""
    sock.sendall(encode_message(payload))
