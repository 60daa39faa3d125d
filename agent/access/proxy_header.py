"""The PROXY protocol header, versions 1 and 2: the client's address as the proxy reports it.

Follows the receiver's rules of the specification (haproxy.org, proxy-protocol.txt) strictly,
because a forged header would decide who is banned. The package `proxy-protocol` accepts ports like
`+22` and `0022` and TLVs with a wrong length, does not check a CRC32C unless another package is
installed, has no limits, and would be imported before the first banner. So this is our own parser,
and the tests compare it with that package.

No input and output here: `wanted` says how many bytes can be read without reading the client's
data.
"""

import re
import socket
from dataclasses import dataclass

from agent.network import Network

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LONGEST_V1 = 107
LONGEST_V2_BODY = 2048

_SHORTEST_V1 = len(b"PROXY UNKNOWN\r\n")
_V2_HEAD = 16
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED = 0x00
_ADDRESSES = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}
_OTHERS = (0x12, 0x22, 0x31, 0x32)
"""UDP and Unix sockets: valid, but not used by SSH."""

_CRC32C = 0x03

_PORT = rb"(0|[1-9]\d{0,4})"
_V1 = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|TCP([46]) ([\d.a-fA-F:]+) ([\d.a-fA-F:]+) "
    + _PORT
    + rb" "
    + _PORT
    + rb")\r\n"
)


class HeaderError(ValueError):
    """The bytes are not a valid PROXY header."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a connection comes from."""

    host: Network
    port: int


def wanted(data: bytes) -> int:
    """How many more bytes surely belong to the header; 0 when it is complete.

    Raises `HeaderError` as soon as `data` cannot become a header.
    """
    if data.startswith(SIGNATURE[: len(data)]):
        return _wanted_v2(data)
    if data.startswith(b"PROXY "[: len(data)]):
        return _wanted_v1(data)
    raise HeaderError("no PROXY header")


def parse(data: bytes) -> Source | None:
    """The source that a complete header names. Raises `HeaderError`.

    None if the proxy does not know it or connects on its own behalf (UNKNOWN, UNSPEC, LOCAL).
    """
    return _parse_v2(data) if data.startswith(SIGNATURE) else _parse_v1(data)


def _wanted_v1(data: bytes) -> int:
    if data.endswith(b"\r\n"):
        return 0
    if len(data) >= LONGEST_V1:
        raise HeaderError(f"no end of line within {LONGEST_V1} bytes")
    end = 1 if data.endswith(b"\r") else 2
    return min(max(end, _SHORTEST_V1 - len(data)), LONGEST_V1 - len(data))


def _wanted_v2(data: bytes) -> int:
    if len(data) < _SHORTEST_V1 or len(data) < _V2_HEAD:
        # Before the first byte the version is not known, and version 1 may be complete after 15.
        return (_V2_HEAD if len(data) >= len(SIGNATURE) else _SHORTEST_V1) - len(data)
    if data[12] not in (_LOCAL, _PROXY):
        raise HeaderError(f"version or command {data[12]:#04x} is unknown")
    length = int.from_bytes(data[14:16], "big")
    if length > LONGEST_V2_BODY:
        raise HeaderError(f"{length} bytes are announced, more than {LONGEST_V2_BODY}")
    return _V2_HEAD + length - len(data)


def _parse_v1(data: bytes) -> Source | None:
    match = _V1.fullmatch(data)
    if match is None:
        raise HeaderError("not a version 1 header")
    if match[1] is None:
        return None
    family = socket.AF_INET if match[1] == b"4" else socket.AF_INET6
    ports = (int(match[4]), int(match[5]))
    if max(ports) > 65535:
        raise HeaderError(f"port {max(ports)} is too large")
    try:
        packed = [socket.inet_pton(family, match[field].decode("ascii")) for field in (2, 3)]
    except OSError:
        raise HeaderError("an address does not belong to its family") from None
    return Source(Network.host(socket.inet_ntop(family, packed[0])), ports[0])


def _parse_v2(data: bytes) -> Source | None:
    command, kind, body = data[12], data[13], data[_V2_HEAD:]
    if len(body) != int.from_bytes(data[14:16], "big"):
        raise HeaderError("the header is not complete")
    # "… provided that it automatically falls back to the UNSPEC mode for the valid combinations
    # above that it does not support."
    if command == _LOCAL or kind == _UNSPECIFIED or kind in _OTHERS:
        return None
    if kind not in _ADDRESSES:
        raise HeaderError(f"address family {kind:#04x} is not TCP over IPv4 or IPv6")
    family, size = _ADDRESSES[kind]
    addresses = 2 * size + 4
    if len(body) < addresses:
        raise HeaderError(f"{len(body)} bytes are too short for two addresses")
    _check_tlvs(data, _V2_HEAD + addresses)
    host = Network.host(socket.inet_ntop(family, body[:size]))
    return Source(host, int.from_bytes(body[2 * size : 2 * size + 2], "big"))


def _check_tlvs(data: bytes, position: int) -> None:
    while position < len(data):
        if position + 3 > len(data):
            raise HeaderError("a TLV is cut off")
        kind, length = data[position], int.from_bytes(data[position + 1 : position + 3], "big")
        value = position + 3
        position = value + length
        if position > len(data):
            raise HeaderError("a TLV is longer than the header")
        if kind == _CRC32C:
            _check_crc(data, value, length)


def _check_crc(data: bytes, value: int, length: int) -> None:
    if length != 4:
        raise HeaderError("a CRC32C of the wrong length")
    stated = int.from_bytes(data[value : value + 4], "big")
    if crc32c(data[:value] + bytes(4) + data[value + 4 :]) != stated:
        raise HeaderError("its CRC32C is wrong")


def crc32c(data: bytes) -> int:
    """The CRC32C of RFC 3720, appendix B.4."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
