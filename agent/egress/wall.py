"""The egress rules in the kernel: installed at boot, updated as addresses change, and watched.

The rules belong to root: the login account has no capability to change them.
"""

import asyncio
import json
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent import safe, unnamed
from agent.bus import Bus
from agent.egress import rules
from agent.egress.rules import Allowed
from agent.events import EgressRefused, EgressUnresolved
from agent.init.children import Children, NotDone, clean_environment
from agent.network import Network
from agent.settings import Settings
from agent.settings.units import names_and_networks

REFRESH = 120.0
"""Seconds between two look-ups of all names."""

KEPT = 3600.0
"""Seconds that an address stays allowed after the last answer with it: clients cache answers."""

LOOK = 30.0
"""Seconds between two readings of refused packets."""

PATIENCE = 10.0
"""Seconds that one name, or nft, may take."""

SHOWN = 20
SAID = 400
"""Characters of nft's output in an error."""

OUTPUT_LIMIT = 4 << 20
RESOLVERS = "/etc/resolv.conf"
NAMES = Path(__file__).parent.parent / "data" / "egress.txt"


class EgressError(Exception):
    """The rules cannot be put in place; the message says what to do."""


@dataclass(slots=True)
class WallRecord:
    """Addresses of the names in `allow`, and when they were last in an answer (monotonic clock)."""

    allow: tuple[str, ...] = ()
    seen: dict[Network, float] = field(default_factory=dict)


class Wall:
    """The egress rules of one run."""

    def __init__(
        self, record: WallRecord, settings: Settings, children: Children, bus: Bus
    ) -> None:
        self.mode = settings.egress
        self.looked_up = asyncio.Event()
        self.addresses: dict[str, tuple[Network, ...]] = {}
        """The addresses of each allowed name in its last answer."""
        self.refused: dict[str, int] = {}
        """Refused packets of the last minutes, by destination (`ADDRESS tcp/PORT`)."""
        self._children = children
        self._run_dir = settings.run_dir
        self._bus = bus
        self.names, fixed = _allowed(settings.egress_allow)
        self.always = Allowed((*settings.private_networks, *fixed), _resolvers())
        self._record = record
        if record.allow != settings.egress_allow:
            # Addresses are kept without names: drop all, as those of a removed name must not stay.
            record.allow, record.seen = settings.egress_allow, {}

    async def put_up(self) -> None:
        """Install the rules: refuse everything that is not allowed. Raises `EgressError`."""
        await self._nft(rules.ruleset(self.mode, self.always, self._record.seen))

    async def remove(self) -> None:
        """Remove the rules. Raises `EgressError`."""
        await self._nft(rules.remove())

    async def allow(self, names: Iterable[str]) -> None:
        """Let processes connect to the hosts of these names too. Raises `EgressError`."""
        self.names = tuple(dict.fromkeys((*self.names, *names)))
        await self._look_up()

    async def run(self) -> None:
        """Update the rules as addresses change, and report refused packets, until cancelled."""
        loop = asyncio.get_running_loop()
        due = 0.0
        while True:
            if loop.time() >= due:
                await self._look_up()
                due = loop.time() + REFRESH
            await asyncio.sleep(LOOK)
            await self._look_at_refused()

    async def _look_up(self) -> None:
        """Look up all names in parallel, as one may hang, and allow their addresses."""
        now, record = asyncio.get_running_loop().time(), self._record
        found = await asyncio.gather(*map(_addresses_of, self.names))
        answers = dict(zip(self.names, found, strict=True))
        self.addresses |= {name: addresses for name, addresses in answers.items() if addresses}
        for addresses in answers.values():
            record.seen |= dict.fromkeys(addresses, now)
        record.seen = {one: at for one, at in record.seen.items() if now - at < KEPT}
        await self._nft(rules.replace_addresses(record.seen))
        self.looked_up.set()
        unresolved = tuple(name for name, addresses in answers.items() if not addresses)
        if unresolved:
            self._bus.publish(EgressUnresolved(names=unresolved))

    async def _look_at_refused(self) -> None:
        found: dict[str, int] = {}
        for name in rules.REFUSED.values():
            text = await self._nft("", "-j", "list", "set", "inet", rules.TABLE, name)
            found |= parse_refused(text)
        fresh = {where: count - self.refused.get(where, 0) for where, count in found.items()}
        fresh = {where: count for where, count in fresh.items() if count > 0}
        self.refused = found
        if fresh:
            most = sorted(fresh, key=lambda where: -fresh[where])[:SHOWN]
            self._bus.publish(
                EgressRefused(
                    destinations=tuple(most),
                    others=len(fresh) - len(most),
                    packets=sum(fresh.values()),
                )
            )

    async def _nft(self, script: str, *words: str) -> str:
        try:
            asked = unnamed.write(script.encode(), self._run_dir)
            try:
                done = await self._children.run(
                    ["nft", *(words or ("-f", "-"))],
                    env=clean_environment(),
                    patience=PATIENCE,
                    keep=OUTPUT_LIMIT,
                    stdin=asked,
                )
            finally:
                os.close(asked)
        except NotDone as error:
            raise EgressError(str(error)) from error
        except OSError as error:
            raise EgressError(f"cannot run nft ({error.strerror}): install nftables") from error
        text = done.output.decode("utf-8", "replace")
        if done.status.code != 0:
            raise EgressError(
                f"nft refuses the rules of SWARM_EGRESS={self.mode} ({done.status}), which need "
                f"the capability NET_ADMIN and nf_tables in the kernel: "
                f"{safe.line(text.strip(), SAID)}"
            )
        return text


async def _addresses_of(name: str) -> tuple[Network, ...]:
    """The addresses of a name; empty without an answer in time."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PATIENCE):
            answers = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:  # TimeoutError is one
        return ()
    return tuple({Network.host(str(entry[4][0])) for entry in answers})


def parse_refused(text: str) -> dict[str, int]:
    """Destination (`ADDRESS tcp/PORT`) → packets, from `nft -j list set`."""
    found = {}
    for entry in json.loads(text).get("nftables", []):
        for element in entry.get("set", {}).get("elem", []):
            address, protocol, port = element["elem"]["val"]["concat"]
            found[f"{address} {protocol}/{port}"] = int(element["elem"]["counter"]["packets"])
    return found


def _allowed(extra: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[Network, ...]]:
    lines = NAMES.read_text(encoding="ascii").splitlines()
    names, networks = names_and_networks(extra)
    shipped = [line for line in lines if line and not line.startswith("#")]
    return tuple(dict.fromkeys((*shipped, *names))), networks


def _resolvers() -> tuple[Network, ...]:
    """The name servers of resolv.conf(5)."""
    found = []
    with suppress(FileNotFoundError), open(RESOLVERS, encoding="ascii", errors="replace") as file:
        for line in file:
            words = line.split()
            if words[:1] == ["nameserver"] and len(words) > 1:
                with suppress(ValueError):  # not an address, so not a name server
                    found.append(Network.host(words[1]))
    return tuple(found)
