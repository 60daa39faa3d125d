"""HTTP on a listening socket, for few connections: SSH needs the descriptors more than it does."""

import asyncio
import logging
import socket
import traceback
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from agent.access.client import Peer
from agent.access.listener import Listener
from agent.events import Bus, ErrorUnhandled

MOST_CONNECTIONS = 64
"""Connections of one origin; the oldest goes for a new one."""


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
        )
        self._origin = origin
        self._open: dict[asyncio.Transport, int] = {}
        # The event loop itself keeps no strong reference to a task.
        self._taking: set[asyncio.Task[None]] = set()

    async def serve(self, listening: socket.socket) -> None:
        """Serve on a listening socket, which is closed in the end, until cancelled."""
        await self._runner.setup()
        listener = Listener(listening, self._arrived, self._bus)
        try:
            await asyncio.get_running_loop().create_future()
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

    def _make_room(self, origin: int) -> None:
        # aiohttp does not say when a connection ends: forget those that have.
        self._open = {each: whose for each, whose in self._open.items() if not each.is_closing()}
        same = [each for each, whose in self._open.items() if whose == origin]
        if len(same) >= MOST_CONNECTIONS:
            same[0].abort()
