"""The machine's TCP sockets and the traffic of each (sock_diag(7), linux/inet_diag.h)."""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from agent.access import tcpinfo
from agent.network import Network, is_loopback

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_INFO = 2
"""INET_DIAG_INFO: struct tcp_info."""

_CONNECTED = sum(1 << state for state in (1, 4, 5, 8, 9, 11))
"""ESTABLISHED, FIN-WAIT-1 and -2, CLOSE-WAIT, LAST-ACK, CLOSING (tcp_states.h)."""

_HEADER = struct.Struct("=IHHII")
_ASK = struct.Struct("=BBBxI48x")
_MESSAGE = struct.Struct("=BBBB2s2s16s16sIQIIIII")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """One connected socket. `cookie` identifies it for ever, `inode` leads to its process."""

    cookie: int
    inode: int
    local_port: int
    remote: Network
    remote_port: int
    total: int
    """Bytes both ways."""


def connected_sockets() -> list[TcpSocket]:
    """Every connected TCP socket whose other end is another machine. Raises `OSError`."""
    found = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as asking:
        asking.settimeout(5)
        for family in (socket.AF_INET, socket.AF_INET6):
            asking.sendto(_question(family), (0, 0))
            found += [entry for body in _answers(asking) if (entry := _parse(body)) is not None]
    return found


def _question(family: int) -> bytes:
    body = _ASK.pack(family, socket.IPPROTO_TCP, 1 << _INFO - 1, _CONNECTED)
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _REQUEST | _DUMP, 1, 0) + body


def _answers(asking: socket.socket) -> Iterator[bytes]:
    while True:
        data = asking.recv(1 << 18)
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            body, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -struct.unpack_from("=i", body)[0]
                raise OSError(number, "this kernel does not list TCP sockets (inet_diag)")
            yield body


def _parse(body: bytes) -> TcpSocket | None:
    family, _, _, _, sport, dport, _, dst, _, cookie, _, _, _, _, inode = _MESSAGE.unpack_from(body)
    size = 4 if family == socket.AF_INET else 16
    remote = Network.host(socket.inet_ntop(family, dst[:size]))
    info = _attribute(body[_MESSAGE.size :], _INFO)
    if info is None or is_loopback(remote):
        return None
    traffic = tcpinfo.parse(info)
    return TcpSocket(
        cookie,
        inode,
        local_port=int.from_bytes(sport, "big"),
        remote=remote,
        remote_port=int.from_bytes(dport, "big"),
        total=traffic.received + traffic.sent,
    )


def _attribute(data: bytes, wanted: int) -> bytes | None:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if kind == wanted:
            return data[_ATTRIBUTE.size : length]
        data = data[max(_ATTRIBUTE.size, (length + 3) & ~3) :]
    return None
