"""Logged-in connections: who, since when, with which key, how busy."""

import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.access import tcpinfo
from agent.access.client import Client
from agent.init.children import Child
from agent.platform import terminals


@dataclass(slots=True, eq=False)
class Session:
    """One login. `process` is the connection's sshd, which lives as long as the session."""

    id: str
    client: Client
    user: str
    key: str
    fingerprint: str
    process: Child
    connection: socket.socket
    started: float
    started_at: float = field(default_factory=time.time)
    terminals: set[str] = field(default_factory=set)

    def traffic(self) -> tcpinfo.Traffic:
        """Bytes each way and idle seconds, as the kernel counts them now."""
        try:
            return tcpinfo.traffic(self.connection)
        except OSError:
            # The connection is being closed: there is nothing left to count.
            return tcpinfo.NOTHING

    def kick(self) -> None:
        """End the session: its client is told why where it has a terminal."""
        self.tell("swarm-agent: this session was ended by an administrator.")
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
        """A login succeeded."""
        self._open[session.id] = session

    def remove(self, session: Session) -> None:
        """The session's sshd has ended."""
        del self._open[session.id]
