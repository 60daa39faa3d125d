"""A small internet: client addresses in a network namespace, and an edge before the machine.

Every world has its own network, so that test runs can run in parallel.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.claims import claim, free_port
from tests.support import until

WORLDS = 64


class World:
    """Clients with an address each, and the edge of the platform in front of the machine."""

    def __init__(self, number: int) -> None:
        self.name = f"world{number}"
        self.prefix = f"10.{128 + number}"
        self.network = f"{self.prefix}.0.0/16"
        self.edge_address = f"{self.prefix}.0.1"
        self.port = free_port()

    def stranger(self, number: int) -> str:
        """The address of a client that has never connected."""
        return f"{self.prefix}.1.{number}"

    def friend(self, number: int) -> str:
        """The address of a client outside the strangers' network."""
        return f"{self.prefix}.2.{number}"

    def client(self, command: list[str]) -> list[str]:
        """A command that runs in the clients' network."""
        return ["ip", "netns", "exec", self.name, *command]

    @contextmanager
    def edge(self, target: int, version: int = 2) -> Iterator[None]:
        """Relay from the edge's address and `port` to the machine's port."""
        words = [self.edge_address, str(self.port), str(target), "--version", str(version)]
        process = subprocess.Popen([sys.executable, "-m", "deploy.edge", *words])
        try:
            until(self._listens, "the edge")
            yield
        finally:
            process.kill()
            process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            try:
                probe.bind((self.edge_address, self.port))
            except OSError:
                return True
        return False


@contextmanager
def world(strangers: int = 60, friends: int = 5) -> Iterator[World]:
    """Make the namespace with its addresses, and remove it again."""
    number, claimed = claim("network", range(WORLDS))
    with claimed:
        made = World(number)
        _remove_stale(made)
        outer, inner = f"w{number}o", f"w{number}i"
        _ip("netns", "add", made.name)
        try:
            _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", made.name)
            _ip("addr", "add", f"{made.edge_address}/16", "dev", outer)
            _ip("link", "set", outer, "up")
            _ip("-n", made.name, "link", "set", "lo", "up")
            _ip("-n", made.name, "link", "set", inner, "up")
            addresses = [made.stranger(n) for n in range(1, strangers + 1)]
            addresses += [made.friend(n) for n in range(1, friends + 1)]
            batch = "".join(f"addr add {address}/16 dev {inner}\n" for address in addresses)
            _ip("-n", made.name, "-batch", "-", text=batch)
            yield made
        finally:
            _ip("netns", "del", made.name)


def _remove_stale(made: World) -> None:
    """Remove what a killed test run left under this number."""
    if os.path.exists(f"/run/netns/{made.name}"):
        _ip("netns", "del", made.name)


def _ip(*words: str, text: str = "") -> None:
    subprocess.run(["ip", *words], input=text, text=True, check=True)
