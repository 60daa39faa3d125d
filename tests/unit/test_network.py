import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.network import Network, any_covers, is_own

ADDRESSES = st.ip_addresses()


@given(ADDRESSES, st.integers(0, 128))
def test_networks_are_those_of_the_standard_library(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, prefix: int
) -> None:
    host = Network.host(str(address))
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    prefix = min(prefix, address.max_prefixlen)
    network = ipaddress.ip_network(f"{address}/{prefix}", strict=False)
    assert str(host.within(prefix)) == str(network).removesuffix(f"/{address.max_prefixlen}")
    assert Network.parse(str(network)) == host.within(prefix)


@given(ADDRESSES, ADDRESSES, st.integers(0, 32))
def test_covers_is_what_the_standard_library_says(
    one: ipaddress.IPv4Address | ipaddress.IPv6Address,
    other: ipaddress.IPv4Address | ipaddress.IPv6Address,
    prefix: int,
) -> None:
    network, host = Network.host(str(one)).within(prefix), Network.host(str(other))
    standard = ipaddress.ip_network(f"{network.address}/{prefix}")
    assert network.covers(host) is (ipaddress.ip_address(host.address) in standard)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.0.0.1/8", "did you mean 10.0.0.0/8"),
        ("10.0.0.0/33", "between 0 and 32"),
        ("10.0.0.0/-1", "prefix length"),
        ("10.0.0", "not an IP address"),
        ("host", "not an IP address"),
        ("::1/129", "between 0 and 128"),
        ("", "not an IP address"),
    ],
)
def test_networks_that_cannot_be_say_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Network.parse(text)


def test_an_ipv4_address_inside_ipv6_is_the_ipv4_address() -> None:
    assert Network.host("::ffff:203.0.113.9") == Network.host("203.0.113.9")
    assert any_covers((Network.parse("203.0.113.0/24"),), Network.host("::ffff:203.0.113.9"))


def test_behind_nat64_the_ipv4_address_is_the_client() -> None:
    assert Network.host("64:ff9b::203.0.113.9").behind_nat64() == Network.host("203.0.113.9")
    other = Network.host("64:ff9b:1::203.0.113.9")
    assert other.behind_nat64() == other


def test_own_addresses_are_known() -> None:
    assert is_own(Network.host("127.0.0.1"))
    assert is_own(Network.host("127.9.9.9"))
    assert is_own(Network.host("::1"))
    assert not is_own(Network.host("203.0.113.9"))
