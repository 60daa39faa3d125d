"""Addresses and networks as numbers: small, hashable, quick to mask.

It replaces the standard library's `ipaddress`, because the gate looks one up for every connection,
a million may be banned, and the module is read before the first banner.
"""

import socket
from typing import NamedTuple

_BITS = {socket.AF_INET: 32, socket.AF_INET6: 128}
_MAPPED = 0xFFFF << 32
"""IPv4 addresses inside IPv6 (RFC 4291, 2.5.5.2): the same host must not have two names."""

_NAT64 = 0x0064FF9B << 64
"""64:ff9b::/96 (RFC 6052), without its last 32 bits: all clients behind a translator are in it."""


class Network(NamedTuple):
    """A network, or one host if `prefix` has all bits. Bits after the prefix are zero."""

    family: int
    prefix: int
    value: int

    @classmethod
    def host(cls, text: str) -> "Network":
        """One address. Raises `ValueError`."""
        family = socket.AF_INET6 if ":" in text else socket.AF_INET
        try:
            packed = socket.inet_pton(family, text.partition("%")[0])
        except OSError:
            raise ValueError(f"{text!r} is not an IP address") from None
        value = int.from_bytes(packed, "big")
        if family == socket.AF_INET6 and value >> 32 == _MAPPED >> 32:
            return cls(socket.AF_INET, 32, value & 0xFFFFFFFF)
        return cls(family, _BITS[family], value)

    def behind_nat64(self) -> "Network":
        """The IPv4 host behind a NAT64 address; otherwise the host itself."""
        if self.family == socket.AF_INET6 and self.prefix == 128 and self.value >> 32 == _NAT64:
            return Network(socket.AF_INET, 32, self.value & 0xFFFFFFFF)
        return self

    @classmethod
    def parse(cls, text: str) -> "Network":
        """An address or a network (`10.0.0.0/8`). Raises `ValueError`."""
        address, slash, bits = text.partition("/")
        host = cls.host(address)
        if not slash:
            return host
        if not (bits.isascii() and bits.isdigit()) or int(bits) > host.prefix:
            raise ValueError(f"{text!r} has no prefix length between 0 and {host.prefix}")
        network = host.within(int(bits))
        if network.value != host.value:
            raise ValueError(f"{text!r} has bits after its prefix: did you mean {network}?")
        return network

    def within(self, prefix: int) -> "Network":
        """The network of `prefix` bits that contains this one."""
        shift = _BITS[socket.AddressFamily(self.family)] - prefix
        return Network(self.family, prefix, self.value >> shift << shift)

    def covers(self, other: "Network") -> bool:
        """Whether this network contains `other`."""
        return (
            self.family == other.family
            and self.prefix <= other.prefix
            and other.within(self.prefix).value == self.value
        )

    @property
    def address(self) -> str:
        """The (first) address as text."""
        size = _BITS[socket.AddressFamily(self.family)] // 8
        return socket.inet_ntop(self.family, self.value.to_bytes(size, "big"))

    def __str__(self) -> str:
        whole = self.prefix == _BITS[socket.AddressFamily(self.family)]
        return self.address if whole else f"{self.address}/{self.prefix}"


def any_covers(networks: tuple[Network, ...], host: Network) -> bool:
    """Whether one of the networks contains the host."""
    return any(network.covers(host) for network in networks)


_LOOPBACK = (Network.parse("127.0.0.0/8"), Network.parse("::1"))


def is_loopback(host: Network) -> bool:
    """Whether the address is a loopback address."""
    return any_covers(_LOOPBACK, host)


def is_own(host: Network) -> bool:
    """Whether the address belongs to this machine, so that a socket can be bound to it."""
    if is_loopback(host):
        return True
    try:
        with socket.socket(host.family, socket.SOCK_DGRAM) as probe:
            probe.bind((host.address, 0))
    except OSError:
        return False
    return True
