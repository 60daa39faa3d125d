"""TCP traffic with other machines that is neither SSH nor the agent's own.

It is read from the sockets, not from the network card: so the process of each byte is known, and
traffic of our own ports (scans, attackers, health checks, scrapes) is excluded exactly.
"""

import asyncio
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from agent import words
from agent.idle.signals.processes import lies_in, user_processes
from agent.idle.signals.sign import Sign
from agent.idle.signals.sockdiag import TcpSocket, connected_sockets
from agent.init.proctree import Process, open_files


@dataclass(frozen=True, slots=True)
class _Flow:
    """The traffic of a socket since the last look."""

    socket: TcpSocket
    count: int


class NetworkTraffic:
    """Bytes of all counted sockets since the last look; `threshold` in bytes a second.

    Sockets at `own_ports` never count, nor do sockets of programs in `ignored` folders or of
    processes that this one cannot see.
    """

    name = "network"

    def __init__(
        self, threshold: float, own_ports: Collection[int], ignored: tuple[str, ...]
    ) -> None:
        self._threshold = threshold
        self._own_ports = own_ports
        self._ignored = ignored
        self._before: dict[int, int] = {}
        self._looked: float | None = None

    async def look(self, now: float) -> list[Sign]:
        """At most one sign that counts: the sum, with the busiest socket. Raises `OSError`."""
        looked, self._looked = self._looked, now
        flows = await asyncio.to_thread(self._flows)
        seconds = 0.0 if looked is None else now - looked
        if seconds <= 0 or sum(flow.count for flow in flows) < self._threshold * seconds:
            return []
        return await asyncio.to_thread(self._attribute, flows, seconds)

    def _flows(self) -> list[_Flow]:
        before, self._before = self._before, {}
        flows = []
        for entry in connected_sockets():
            if entry.local_port not in self._own_ports:
                self._before[entry.cookie] = entry.total
                flows.append(_Flow(entry, entry.total - before.get(entry.cookie, 0)))
        return sorted(flows, key=lambda flow: -flow.count)

    def _attribute(self, flows: list[_Flow], seconds: float) -> list[Sign]:
        owners = _owners({flow.socket.inode for flow in flows if flow.count})
        counted: list[tuple[_Flow, Process]] = []
        ignored: list[Sign] = []
        for flow in flows:
            owner = owners.get(flow.socket.inode)
            if owner is None:
                continue
            folder = lies_in(owner.pid, self._ignored)
            if folder is None:
                counted.append((flow, owner))
            else:
                ignored.append(Sign(False, f"{_says(flow, owner, seconds)}, ignored ({folder})"))
        total = sum(flow.count for flow, _ in counted)
        signs = ignored[:1]
        if counted and total:
            says = _says(*counted[0], seconds)
            more = len([flow for flow, _ in counted if flow.count]) - 1
            says += f" and {more} more, {words.rate(total, seconds)} together" if more else ""
            signs.insert(0, Sign(total >= self._threshold * seconds, says))
        return signs


def _says(flow: _Flow, owner: Process, seconds: float) -> str:
    place = f"{flow.socket.remote.address} port {flow.socket.remote_port}"
    return f"pid {owner.pid} {owner.command}: {words.rate(flow.count, seconds)} with {place}"


def _owners(inodes: set[int]) -> dict[int, Process]:
    """The user processes that hold these sockets open."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    owners: dict[int, Process] = {}
    for process in user_processes():
        with suppress(FileNotFoundError, ProcessLookupError, *_not_ours()):  # it has exited
            for file in open_files(process.pid):
                if file in links:
                    owners[links[file]] = process
    return owners


def _not_ours() -> tuple[type[OSError], ...]:
    # An ordinary user cannot inspect a set-uid program; for root, a refusal is an error.
    return () if os.geteuid() == 0 else (PermissionError,)
