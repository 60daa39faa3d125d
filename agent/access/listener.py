"""A listening socket that only its owner can close."""

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

from agent.access.values import Peer
from agent.bus import Bus
from agent.events import ListenerPaused
from agent.settings.units import Endpoint

BACKLOG = 1024
ACCEPT_BATCH = 64
"""Connections accepted in one step of the event loop, so that a flood does not block the rest."""

PAUSE = 0.2
"""Seconds without accepting when the machine is out of descriptors or memory."""

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class ListenError(Exception):
    """The listener cannot be opened; the message says what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Listening:
    """A listening socket, and where it listens (`HOST:PORT`)."""

    place: str
    socket: socket.socket


class Listener:
    """Calls `on_connection` with each accepted socket and its peer until closed."""

    def __init__(
        self,
        listening: socket.socket,
        on_connection: Callable[[socket.socket, Peer], None],
        bus: Bus,
    ) -> None:
        self._socket = listening
        self._on_connection = on_connection
        self._bus = bus
        self._resume: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._accept)

    @property
    def paused(self) -> bool:
        """No connection is accepted for the moment."""
        return self._resume is not None

    def close(self) -> None:
        """Stop listening."""
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _accept(self) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                connection, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            self._on_connection(connection, peer)

    def _pause(self, error: OSError) -> None:
        # The socket stays readable while accept fails: retrying at once would spin.
        self._loop.remove_reader(self._socket)
        self._bus.publish(ListenerPaused(problem=str(error), retry_in=PAUSE))
        self._resume = self._loop.call_later(PAUSE, self._listen_again)

    def _listen_again(self) -> None:
        self._resume = None
        self._loop.add_reader(self._socket, self._accept)


def listen(endpoint: Endpoint, setting: str) -> socket.socket:
    """Open a non-blocking TCP socket that listens at the place from `setting`.

    Raises `ListenError`.
    """
    try:
        if endpoint.host == "" and socket.has_dualstack_ipv6():
            return _open(("::", endpoint.port), socket.AF_INET6, dual=True)
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        return _open((endpoint.host, endpoint.port), family)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {endpoint} ({error.strerror}): stop the program that uses "
            f"the port (ss -ltnp shows it), or choose another port in {setting}"
        ) from error


def _open(address: tuple[str, int], family: int, *, dual: bool = False) -> socket.socket:
    try:
        listener = socket.create_server(
            address, family=family, backlog=BACKLOG, dualstack_ipv6=dual
        )
    except OSError as error:
        if dual and error.errno in _NO_IPV6:
            # IPv6 is built in but switched off.
            return _open(("", address[1]), socket.AF_INET)
        raise
    listener.setblocking(False)
    return listener
