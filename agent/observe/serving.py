"""HTTP on a listening socket, for few connections: SSH needs the descriptors more than it does."""

import asyncio
import logging
import socket
import traceback
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from agent.access.listener import Listener
from agent.access.values import Peer
from agent.bus import Bus
from agent.events import ErrorUnhandled

MOST_CONNECTIONS = 64
"""Connections of one origin; the oldest goes for a new one."""

UNREAD_FOR = 15.0
"""Seconds after which who reads nothing of an answer is cut."""


def anybody(_: socket.socket) -> int:
    """The origin of connections that are all counted together."""
    return 0


class _Errors(logging.Handler):
    """Tells errors of ours; a client's own are no line of the log: there may be any number."""

    def __init__(self, bus: Bus) -> None:
        super().__init__()
        self._bus = bus

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError | ConnectionError | web.RequestPayloadError):
            where = "" if error is None else "".join(traceback.format_exception(error))
            self._bus.publish(ErrorUnhandled(problem=record.getMessage(), where=where))


class Serving:
    """Serves an application until cancelled. `origin` says together with whom one is counted."""

    def __init__(
        self,
        app: web.Application,
        keepalive: float,
        origin: Callable[[socket.socket], int],
        bus: Bus,
    ) -> None:
        self._bus = bus
        errors = logging.Logger("http")
        errors.addHandler(_Errors(bus))
        self._runner = web.AppRunner(
            app,
            logger=errors,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=0.5,
            keepalive_timeout=keepalive,
            # A request whose client has gone must not keep waiting.
            handler_cancellation=True,
        )
        self._origin = origin
        self._open: dict[asyncio.Transport, int] = {}
        self._unread: dict[asyncio.Transport, int] = {}
        """Bytes that each connection's reader had not taken at the last look."""
        # The event loop itself keeps no strong reference to a task.
        self._taking: set[asyncio.Task[None]] = set()

    async def serve(self, listening: socket.socket) -> None:
        """Serve on a listening socket, which is closed in the end, until cancelled."""
        await self._runner.setup()
        listener = Listener(listening, self._arrived, self._bus)
        try:
            while True:
                await asyncio.sleep(UNREAD_FOR)
                self._cut_who_does_not_read()
        finally:
            listener.close()
            await self._runner.cleanup()

    def _arrived(self, connection: socket.socket, _peer: Peer) -> None:
        task = asyncio.create_task(self._take(connection))
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)

    async def _take(self, connection: socket.socket) -> None:
        origin = self._origin(connection)
        self._make_room(origin)
        connection.setblocking(False)
        server = self._runner.server
        if server is None:
            connection.close()  # the part is ending
            return
        try:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.connect_accepted_socket(server, connection)
        except OSError:
            connection.close()
            return
        self._open[transport] = origin

    def _cut_who_does_not_read(self) -> None:
        unread = {
            each: each.get_write_buffer_size() for each in self._open if not each.is_closing()
        }
        for transport, size in unread.items():
            if size and self._unread.get(transport) == size:
                transport.abort()
        self._unread = unread

    def _make_room(self, origin: int) -> None:
        # aiohttp does not say when a connection ends: forget the ended ones.
        self._open = {each: whose for each, whose in self._open.items() if not each.is_closing()}
        same = [each for each, whose in self._open.items() if whose == origin]
        if len(same) >= MOST_CONNECTIONS:
            same[0].abort()
