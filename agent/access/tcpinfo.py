"""The kernel's counters of a TCP connection (struct tcp_info, linux/tcp.h).

The socket belongs to sshd; a duplicate is enough to read them, and no byte passes through us.
"""

import socket
import struct
from dataclasses import dataclass

_LAYOUT = struct.Struct("=8B24I4Q")
_LAST_DATA_SENT = 8 + 9
_LAST_DATA_RECEIVED = 8 + 11
_BYTES_ACKED = 8 + 24 + 2
_BYTES_RECEIVED = 8 + 24 + 3


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes as the machine sees them, and seconds since the last byte either way."""

    received: int
    sent: int
    idle: float


NOTHING = Traffic(0, 0, 0.0)


def traffic(connection: socket.socket) -> Traffic:
    """The counters of a connection. Raises `OSError` for a socket that is not TCP."""
    return parse(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAYOUT.size))


def parse(info: bytes) -> Traffic:
    """The counters in a struct tcp_info. Raises `OSError` where the kernel has none."""
    if len(info) < _LAYOUT.size:
        raise OSError("this kernel's tcp_info has no byte counters (Linux 4.1 or later is needed)")
    values = _LAYOUT.unpack_from(info)
    idle = min(values[_LAST_DATA_SENT], values[_LAST_DATA_RECEIVED]) / 1000
    return Traffic(values[_BYTES_RECEIVED], values[_BYTES_ACKED], idle)
