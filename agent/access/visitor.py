"""A client at the gate that has not logged in: a socket that waits for its turn, then a sshd.

While it waits it costs a descriptor and no process. Whether the client has said something is asked
of the kernel without taking a byte of it (MSG_PEEK): all of them are sshd's.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from agent.access.connection import Connection
from agent.access.values import Client
from agent.init.descriptor import Descriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitorRecord:
    """One that waits."""

    socket: Descriptor
    client: Client
    door: str


class Visitor:
    """Waits once `wait` is called, until `stop_waiting`; `connection` is there with its sshd."""

    def __init__(self, waiting: socket.socket, client: Client, door: str) -> None:
        self.socket = waiting
        self.client = client
        self.door = door
        self.connection: Connection | None = None
        self._watched = False
        self._loop = asyncio.get_running_loop()

    def hold(self) -> VisitorRecord:
        """All that the next agent must know of one that waits."""
        descriptor = Descriptor(self.socket.fileno())
        return VisitorRecord(socket=descriptor, client=self.client, door=self.door)

    def wait(
        self, on_word: Callable[["Visitor"], object], on_gone: Callable[["Visitor"], object]
    ) -> None:
        """Call one of these, once, when the client says its first word or has gone."""

        def readable() -> None:
            self.stop_waiting()
            try:
                said = self.socket.recv(1, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                self.wait(on_word, on_gone)
            except OSError:
                on_gone(self)
            else:
                (on_word if said else on_gone)(self)

        self.socket.setblocking(False)
        self._loop.add_reader(self.socket, readable)
        self._watched = True

    def stop_waiting(self) -> None:
        """Listen to it no longer; nothing happens the second time."""
        if self._watched:
            self._loop.remove_reader(self.socket)
            self._watched = False
