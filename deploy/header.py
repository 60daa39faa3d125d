"""The PROXY protocol header as the edge writes it (haproxy.org, proxy-protocol.txt)."""

import socket
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def header(version: int, source: tuple[str, int], target: tuple[str, int]) -> bytes:
    """The PROXY header, version 1 or 2, of a TCP connection."""
    six = ":" in source[0]
    if version == 1:
        kind = "TCP6" if six else "TCP4"
        text = f"PROXY {kind} {source[0]} {target[0]} {source[1]} {target[1]}\r\n"
        return text.encode("ascii")
    family, code = (socket.AF_INET6, 0x21) if six else (socket.AF_INET, 0x11)
    ends = b"".join(socket.inet_pton(family, address) for address, _ in (source, target))
    body = ends + struct.pack(">HH", source[1], target[1])
    return SIGNATURE + bytes([0x21, code]) + struct.pack(">H", len(body)) + body
