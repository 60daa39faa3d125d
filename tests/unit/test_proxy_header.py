"""The PROXY header: trusted and refused headers; no byte of the client is consumed."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxyprotocol.detect import ProxyProtocolDetect
from proxyprotocol.result import ProxyResultIPv4, ProxyResultIPv6, ProxyResultLocal
from proxyprotocol.v1 import ProxyProtocolV1
from proxyprotocol.v2 import ProxyProtocolV2

from agent.access.proxy_header import (
    LONGEST_V1,
    LONGEST_V2_BODY,
    SIGNATURE,
    HeaderError,
    Source,
    crc32c,
    parse,
    wanted,
)
from agent.network import Network


def read(stream: bytes) -> tuple[Source | None, bytes]:
    """The source, and the bytes left for sshd. Raises if the stream ends within the header."""
    data = b""
    while missing := wanted(data):
        assert missing > 0
        if len(data) + missing > len(stream):
            raise EOFError
        data = stream[: len(data) + missing]
    return parse(data), stream[len(data) :]


def v2(body: bytes, command: int = 0x21, kind: int = 0x11, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return SIGNATURE + bytes([command, kind]) + struct.pack(">H", size) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


ADDRESSES = (
    socket.inet_aton("203.0.113.9") + socket.inet_aton("10.0.0.1") + struct.pack(">HH", 5, 22)
)
V1 = b"PROXY TCP4 203.0.113.9 10.0.0.1 5 22\r\n"
SOURCE = Source(Network.host("203.0.113.9"), 5)

GOOD = [
    (V1, SOURCE),
    (b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", Source(Network.host("2001:db8::1"), 65535)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ff:ff any thing 1 2 3\r\n", None),
    (b"PROXY UNKNOWN " + b"x" * (LONGEST_V1 - 16) + b"\r\n", None),
    (v2(ADDRESSES), SOURCE),
    (v2(ADDRESSES + tlv(0xEE, b"fly") + tlv(0x04, b"")), SOURCE),
    (v2(ADDRESSES + tlv(0x04, bytes(LONGEST_V2_BODY - 15))), SOURCE),
    (v2(b"", command=0x20, kind=0), None),
    (v2(ADDRESSES, command=0x20), None),
    (v2(b"", kind=0), None),
    # Valid, and nothing that we speak: "… automatically falls back to the UNSPEC mode".
    (v2(ADDRESSES, kind=0x12), None),
    (v2(b"", kind=0x22), None),
    (v2(bytes(216), kind=0x31), None),
    (v2(b"", kind=0x32), None),
    # One host has one name: an IPv4 client cannot evade its record by using IPv6.
    (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 5 22\r\n", SOURCE),
]

BAD = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"proxy TCP4 203.0.113.9 10.0.0.1 5 22\r\n",
    b"PROXY TCP4  203.0.113.9 10.0.0.1 5 22\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 5 22 \r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 05 22\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 +5 22\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 5_0 22\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 5 65536\r\n",
    b"PROXY TCP4 203.0.113.09 10.0.0.1 5 22\r\n",
    b"PROXY TCP4 203.0.113.9 10.0.0.1 5\r\n",
    b"PROXY TCP4 2001:db8::1 10.0.0.1 5 22\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 5 22\r\n",
    b"PROXY UDP4 203.0.113.9 10.0.0.1 5 22\r\n",
    b"PROXY UNKNOWNX\r\n" + b" " * 100,
    b"PROXY TCP4 203.0.113.9 10.0.0.1 5 22\n" + b" " * 100,
    b"PROXY UNKNOWN " + b"x" * 200,
    b"PROXY UNKNOWN a\rb\r\n",
    v2(ADDRESSES, command=0x22),
    v2(ADDRESSES, command=0x11),
    v2(ADDRESSES, kind=0x13),
    v2(ADDRESSES, kind=0x41),
    v2(ADDRESSES[:-1]),
    v2(ADDRESSES, kind=0x21),
    v2(ADDRESSES, length=LONGEST_V2_BODY + 1),
    v2(ADDRESSES + b"\x04"),
    v2(ADDRESSES + b"\x04\x00\x05abcd"),
    v2(ADDRESSES + tlv(0x03, b"abcd")),
    v2(ADDRESSES + tlv(0x03, b"abc")),
]  # fmt: skip


@pytest.mark.parametrize(("header", "source"), GOOD)
def test_good_headers_are_believed_and_end_where_the_client_begins(
    header: bytes, source: Source | None
) -> None:
    assert read(header + b"SSH-2.0-x\r\n") == (source, b"SSH-2.0-x\r\n")


@pytest.mark.parametrize("header", BAD)
def test_bad_headers_are_refused(header: bytes) -> None:
    with pytest.raises(HeaderError) as error:
        read(header + b"SSH-2.0-x\r\n")
    assert str(error.value)


@pytest.mark.parametrize("header", [header for header, _ in GOOD])
def test_a_header_may_arrive_split_at_every_byte(header: bytes) -> None:
    for end in range(len(header)):
        missing = wanted(header[:end])
        assert 0 < missing <= len(header) - end
    assert wanted(header) == 0


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for(stream: bytes) -> None:
    try:
        source, _ = read(stream)
    except (HeaderError, EOFError):
        return
    # hypothesis can build a header that names nobody from our own constants.
    assert source is None


@given(st.sampled_from([header for header, _ in GOOD]), st.data())
def test_a_changed_header_never_breaks_the_parser(header: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(header) - 1))
    changed = header[:position] + bytes([data.draw(st.integers(0, 255))]) + header[position + 1 :]
    try:
        read(changed + b"rest")
    except (HeaderError, EOFError):
        return


@given(st.binary(max_size=64), st.integers(0, 65535), st.sampled_from([0x11, 0x21, 0x00]))
def test_lengths_that_lie_take_no_byte_of_the_client(body: bytes, length: int, kind: int) -> None:
    stream = v2(body, kind=kind, length=length) + b"SSH-2.0-x\r\n"
    try:
        _, rest = read(stream)
    except (HeaderError, EOFError):
        return
    assert rest == stream[16 + length :]


PORTS = st.integers(0, 65535)
ENDS_V4 = st.tuples(st.ip_addresses(v=4), PORTS)
ENDS_V6 = st.tuples(st.ip_addresses(v=6), PORTS)
V4 = st.builds(ProxyResultIPv4, ENDS_V4, ENDS_V4)
V6 = st.builds(ProxyResultIPv6, ENDS_V6, ENDS_V6)


@given(V4 | V6, st.sampled_from([ProxyProtocolV1(), ProxyProtocolV2()]))
def test_headers_built_by_the_package_are_read_as_it_means_them(
    result: ProxyResultIPv4 | ProxyResultIPv6, protocol: ProxyProtocolV1 | ProxyProtocolV2
) -> None:
    header = protocol.pack(result)
    if isinstance(protocol, ProxyProtocolV2):
        # By default the package leaves the transport out (UNSPEC); the proxy sends STREAM.
        header = header[:13] + bytes([header[13] | 1]) + header[14:]
        header = _without_crc(header)
    source, rest = read(header + b"rest")
    assert source is not None
    assert rest == b"rest"
    host, port = result.source
    assert (source.host, source.port) == (Network.host(str(host)), port)


def _without_crc(header: bytes) -> bytes:
    size = 12 if header[13] == 0x11 else 36
    return v2(header[16 : 16 + size], kind=header[13])


@given(st.sampled_from([header for header, _ in GOOD]), st.data())
def test_what_we_believe_the_package_reads_the_same(header: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(header) - 1))
    value = data.draw(st.integers(0, 255) | st.sampled_from(b"0123456789. "))
    stream = header[:position] + bytes([value]) + header[position + 1 :] + bytes(50)
    try:
        source, rest = read(stream)
    except (HeaderError, EOFError):
        return
    if source is None and stream.startswith(SIGNATURE) and stream[13] in (0x12, 0x22, 0x31, 0x32):
        return  # UDP and Unix sockets: nobody, for us
    result = ProxyProtocolDetect().unpack(stream[: len(stream) - len(rest)])
    if source is None:
        assert result.source is None
    else:
        assert isinstance(result.source, tuple)
        assert Network.host(str(result.source[0])) == source.host


def test_local_of_the_package_is_nobody() -> None:
    header = ProxyProtocolV2().pack(ProxyResultLocal())
    assert read(header + b"x") == (None, b"x")


def test_crc32c_holds_where_it_is_given() -> None:
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(bytes(range(32))) == 0x46DD794E
    blank = v2(ADDRESSES + tlv(0x03, bytes(4)))
    good = blank[:-4] + struct.pack(">I", crc32c(blank))
    assert read(good) == (SOURCE, b"")
    with pytest.raises(HeaderError, match="CRC32C"):
        read(good[:-1] + bytes([good[-1] ^ 1]))
