"""A small internet: client addresses in a network namespace, and an edge before the machine."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support import free_port, until

EDGE = "10.77.0.1"


class World:
    """Clients at 10.77.1.0/24 (strangers) and 10.77.2.0/24 (friends); the edge at 10.77.0.1."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()

    def client(self, command: list[str]) -> list[str]:
        """A command that runs among the clients."""
        return ["ip", "netns", "exec", self.name, *command]

    @contextmanager
    def edge(self, target: int, version: int = 2) -> Iterator[None]:
        """Relay from EDGE:port to the machine's port."""
        words = [EDGE, str(self.port), str(target), "--version", str(version)]
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
                probe.bind((EDGE, self.port))
            except OSError:
                return True
        return False


@contextmanager
def world(strangers: int = 60, friends: int = 5) -> Iterator[World]:
    """Make the namespace with its addresses, and take it away again."""
    _remove_stale()
    name = f"swarm{os.getpid()}"
    outer, inner = f"sw{os.getpid() % 100000}o", f"sw{os.getpid() % 100000}i"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
        _ip("addr", "add", f"{EDGE}/16", "dev", outer)
        _ip("link", "set", outer, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "link", "set", inner, "up")
        addresses = [f"10.77.1.{n}" for n in range(1, strangers + 1)]
        addresses += [f"10.77.2.{n}" for n in range(1, friends + 1)]
        batch = "".join(f"addr add {address}/16 dev {inner}\n" for address in addresses)
        _ip("-n", name, "-batch", "-", text=batch)
        yield World(name)
    finally:
        _ip("netns", "del", name)


def _remove_stale() -> None:
    """Take away what a killed test run left: its addresses are the ones we need."""
    listing = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    for line in listing.stdout.splitlines():
        name = line.split()[0]
        if name.startswith("swarm") and not os.path.exists(f"/proc/{name.removeprefix('swarm')}"):
            _ip("netns", "del", name)


def _ip(*words: str, text: str = "") -> None:
    subprocess.run(["ip", *words], input=text, text=True, check=True)
