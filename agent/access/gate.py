"""The gate: accepts connections and hands each to a sshd of its own.

It keeps no connection waiting for another one, and an error of one connection, or of the
machine (no descriptors, no processes), never ends the listener.
"""

import asyncio
import socket

from agent.access.client import Client
from agent.access.connection import Access, Connection, Outcome
from agent.events import ConnectionRefused, ListenerPaused
from agent.settings.units import Endpoint

BACKLOG = 1024
ACCEPT_BATCH = 64
"""Connections taken in one step of the loop, so that a flood leaves room for the rest."""

PAUSE = 0.2
"""Seconds without accepting when the machine is out of descriptors or memory."""


class GateError(Exception):
    """The listener cannot be opened; the message says what to do."""


class Gate:
    """Serves SSH on one endpoint. `served` is set once a connection logged in or ended."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._listener: socket.socket | None = None
        self._connections: set[Connection] = set()
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self.accepted = 0
        self.served = asyncio.Event()

    def open(self) -> None:
        """Listen from now on. Raises `GateError`."""
        self._listener = _listen(self._access.settings.listen)
        self._loop.add_reader(self._listener, self._accept, self._listener)

    def close(self) -> None:
        """Take no more connections; those that are there go on."""
        if self._resume is not None:
            self._resume.cancel()
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                connection, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(listener, error)
                return
            self._admit(connection, Client.from_peer(peer))

    def _admit(self, connection: socket.socket, client: Client) -> None:
        self.accepted += 1
        try:
            entry = Connection(connection, client, self._access, self._logged_in, self._ended)
        except OSError as error:
            connection.close()
            self._access.bus.publish(
                ConnectionRefused(
                    client=str(client), reason=f"no sshd could be started: {error.strerror}"
                )
            )
            return
        self._connections.add(entry)

    def _logged_in(self, _connection: Connection) -> None:
        self.served.set()

    def _ended(self, connection: Connection, _outcome: Outcome) -> None:
        self._connections.discard(connection)
        self.served.set()

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        # The listener stays readable while accept fails: asking again at once would spin.
        self._loop.remove_reader(listener)
        self._access.bus.publish(ListenerPaused(problem=str(error), retry_in=PAUSE))
        self._resume = self._loop.call_later(
            PAUSE, self._loop.add_reader, listener, self._accept, listener
        )


def _listen(endpoint: Endpoint) -> socket.socket:
    try:
        if endpoint.host == "" and socket.has_dualstack_ipv6():
            return _non_blocking(("::", endpoint.port), socket.AF_INET6, dual=True)
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        return _non_blocking((endpoint.host, endpoint.port), family, dual=False)
    except OSError as error:
        raise GateError(
            f"cannot listen on {endpoint} ({error.strerror}): end what uses the port "
            "(ss -ltnp shows it), or choose another in SWARM_LISTEN"
        ) from error


def _non_blocking(address: tuple[str, int], family: int, *, dual: bool) -> socket.socket:
    listener = socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=dual)
    listener.setblocking(False)
    return listener
