"""The egress rules as text for nftables (nft(8)), generated from the allowed destinations.

They form one table of our own, replaced in one transaction: there is never a moment without rules.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from agent.network import Network

TABLE = "swarm_egress"
ALLOWED = {4: "allowed4", 6: "allowed6"}
REFUSED = {4: "refused4", 6: "refused6"}

_SET = "  set {name} {{ type {kind}; flags interval; auto-merge; {elements}}}\n"
_REFUSED_SET = (
    "  set {name} {{ type {kind} . inet_proto . inet_service; size 4096; "
    "flags dynamic,timeout; timeout 10m; counter; }}\n"
)
_STANDARD = "    tcp dport { 22, 80, 443 } accept\n    udp dport 443 accept\n"


@dataclass(frozen=True, slots=True)
class Allowed:
    """Destinations: networks for every port, resolvers for port 53 only."""

    networks: tuple[Network, ...]
    resolvers: tuple[Network, ...]


def ruleset(mode: str, always: Allowed, addresses: Iterable[Network]) -> str:
    """The whole table for `standard` or `strict`; `addresses` are those of the allowed names."""
    return (
        f"table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n"
        + _sets(addresses)
        + "  chain decide {\n"
        '    oifname "lo" accept\n'
        "    ct state established,related accept\n"
        "    meta l4proto { icmp, ipv6-icmp } accept\n"
        + "".join(_accept(network, "") for network in always.networks)
        + "".join(
            _accept(resolver, "meta l4proto { tcp, udp } th dport 53 ")
            for resolver in always.resolvers
        )
        + f"    ip daddr @{ALLOWED[4]} accept\n    ip6 daddr @{ALLOWED[6]} accept\n"
        + (_STANDARD if mode == "standard" else "")
        + f"    update @{REFUSED[4]} {{ ip daddr . meta l4proto . th dport }}\n"
        + f"    update @{REFUSED[6]} {{ ip6 daddr . meta l4proto . th dport }}\n"
        # Refuse at once: a program that waits for a timeout looks broken.
        "    reject with icmpx admin-prohibited\n  }\n"
        "  chain output { type filter hook output priority 0; policy accept; jump decide; }\n"
        "  chain forward { type filter hook forward priority 0; policy accept; jump decide; }\n"
        "}\n"
    )


def replace_addresses(addresses: Iterable[Network]) -> str:
    """Replace the addresses of the allowed names, in one step."""
    text = ""
    by_version = _by_version(addresses)
    for version, name in ALLOWED.items():
        text += f"flush set inet {TABLE} {name}\n"
        if by_version[version]:
            listed = ", ".join(by_version[version])
            text += f"add element inet {TABLE} {name} {{ {listed} }}\n"
    return text


def remove() -> str:
    """Remove the table if it exists."""
    return f"table inet {TABLE}\ndelete table inet {TABLE}\n"


def _sets(addresses: Iterable[Network]) -> str:
    text = ""
    by_version = _by_version(addresses)
    for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        listed = ", ".join(by_version[version])
        elements = f"elements = {{ {listed} }}; " if listed else ""
        text += _SET.format(name=ALLOWED[version], kind=kind, elements=elements)
        text += _REFUSED_SET.format(name=REFUSED[version], kind=kind)
    return text


def _accept(network: Network, match: str) -> str:
    return f"    {_family(network)} daddr {network} {match}accept\n"


def _by_version(addresses: Iterable[Network]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {4: [], 6: []}
    for address in sorted(addresses):
        found[6 if _family(address) == "ip6" else 4].append(str(address))
    return found


def _family(network: Network) -> str:
    return "ip6" if ":" in str(network) else "ip"
