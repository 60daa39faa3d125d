import json

import pytest

from agent.egress.rules import Allowed, replace_addresses, ruleset
from agent.egress.wall import parse_refused
from agent.network import Network
from agent.settings import units


def networks(*words: str) -> tuple[Network, ...]:
    return tuple(map(Network.parse, words))


def test_strict_has_no_ports_and_standard_has_the_webs() -> None:
    always = Allowed(networks("fdaa::/16"), networks("10.0.0.53"))
    strict = ruleset("strict", always, networks("192.0.2.1", "2001:db8::1"))
    assert "dport { 22" not in strict
    assert "ip6 daddr fdaa::/16 accept" in strict
    assert "ip daddr 10.0.0.53 meta l4proto { tcp, udp } th dport 53 accept" in strict
    assert "elements = { 192.0.2.1 }" in strict
    assert "elements = { 2001:db8::1 }" in strict
    assert "dport { 22, 80, 443 } accept" in ruleset("standard", always, ())


def test_addresses_are_replaced_in_one_script() -> None:
    script = replace_addresses(networks("192.0.2.2", "192.0.2.1"))
    assert script.splitlines() == [
        "flush set inet swarm_egress allowed4",
        "add element inet swarm_egress allowed4 { 192.0.2.1, 192.0.2.2 }",
        "flush set inet swarm_egress allowed6",
    ]


def test_what_was_refused_is_read_from_nft() -> None:
    element = {"val": {"concat": ["192.0.2.1", "tcp", 25]}, "counter": {"packets": 3, "bytes": 9}}
    text = json.dumps({"nftables": [{"metainfo": {}}, {"set": {"elem": [{"elem": element}]}}]})
    assert parse_refused(text) == {"192.0.2.1 tcp/25": 3}
    assert parse_refused('{"nftables": [{"set": {"name": "refused4"}}]}') == {}


@pytest.mark.parametrize(
    "text", ["localhost", "-a.example", "a b.c/8", "1.2.3.4/33", "x;y.z", "a..b"]
)
def test_destinations_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"which|prefix|address"):
        units.destinations(text)


def test_destinations() -> None:
    assert units.destinations("a.example, 10.0.0.0/8 ::1") == ("a.example", "10.0.0.0/8", "::1")
