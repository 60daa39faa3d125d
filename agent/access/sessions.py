"""Logged-in connections: who, since when, with which key, how busy."""

import asyncio
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.access import tcpinfo
from agent.access.values import Client
from agent.init.children import Child
from agent.platform import terminals

FAREWELL = 0.3
"""Seconds for the last line to reach the client, before SIGTERM ends its sshd at once."""


@dataclass(slots=True, eq=False, kw_only=True)
class Session:
    """One login: who, when, with which key. `process` is the sshd of its connection."""

    id: str
    client: Client
    user: str
    key: str
    fingerprint: str
    process: Child
    connection: socket.socket
    started: float = field(default_factory=time.monotonic)
    started_at: float = field(default_factory=time.time)
    terminals: set[str] = field(default_factory=set)
    """The terminals that were opened for it so far."""
    ended_by: str = ""
    """Why the agent ends it, if it does."""

    def traffic(self) -> tcpinfo.Traffic:
        """Bytes each way and idle seconds, as the kernel counts them now."""
        try:
            return tcpinfo.traffic(self.connection)
        except OSError:
            # The connection is being closed: there is nothing left to count.
            return tcpinfo.NOTHING

    def kick(self) -> None:
        """End the session, a moment after a line on its terminals that says why."""
        self.ended_by = "kicked"
        self.tell("swarm-agent: this session was ended by an administrator.")
        asyncio.get_running_loop().call_later(FAREWELL, self._end)

    def _end(self) -> None:
        if self.process.running:
            self.process.send(signal.SIGTERM)

    def tell(self, text: str) -> None:
        """Write a line on every terminal of the session, without waiting for slow ones."""
        for terminal in self.terminals:
            terminals.write(terminal, text)


class Sessions:
    """The sessions that are open now, by id."""

    def __init__(self) -> None:
        self._open: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._open.values()))

    def get(self, name: str) -> Session | None:
        """The open session of this id."""
        return self._open.get(name)

    def add(self, session: Session) -> None:
        """Add the session of a login."""
        self._open[session.id] = session

    def end_with(self, reason: str) -> None:
        """Set the reason with which all open sessions will end."""
        for session in self._open.values():
            session.ended_by = reason

    def remove(self, session: Session) -> None:
        """Remove a session whose sshd has ended."""
        del self._open[session.id]
