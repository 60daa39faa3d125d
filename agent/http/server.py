"""An HTTP server for few connections: SSH needs the descriptors more."""

import asyncio
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

import h11

from agent.access.listener import Listener
from agent.access.values import Peer
from agent.bus import Bus
from agent.events import ErrorUnhandled
from agent.http.messages import Answer, Request
from agent.http.routes import Handler

MOST_CONNECTIONS = 64
"""The most connections of one origin; a new one replaces the oldest."""

UNREAD_FOR = 15.0
"""Seconds after which a client that does not read its answer is disconnected."""

LONGEST_HEAD = 16 << 10
"""The largest request line with its header, in bytes."""

MOST_AHEAD = 64 << 10
"""The most bytes that a client may send before it has its answer."""


def anybody(_: socket.socket) -> int:
    """The origin if all connections are counted together."""
    return 0


@dataclass(frozen=True, slots=True)
class Manners:
    """How a server treats its clients."""

    keepalive: float
    """Seconds that a connection may stay open without a complete request."""
    longest_body: int
    """Bytes of a request's body."""
    origin: Callable[[socket.socket], int]
    """The origin of a connection; connections are limited per origin."""


class Server:
    """Lets a handler answer every request on a listening socket.

    If the client disconnects, its request is cancelled.
    """

    def __init__(
        self, handler: Handler, refusal: Callable[[str, int], Answer], manners: Manners, bus: Bus
    ) -> None:
        self.handler = handler
        self.refusal = refusal
        self.manners = manners
        self._bus = bus
        self._open: dict[_Connection, None] = {}
        """The oldest first."""
        # The event loop itself keeps no strong reference to a task.
        self._taking: set[asyncio.Task[None]] = set()

    async def serve(self, listening: socket.socket) -> None:
        """Serve on a listening socket until cancelled, then close it."""
        listener = Listener(listening, self._arrived, self._bus)
        try:
            while True:
                await asyncio.sleep(UNREAD_FOR)
                for connection in list(self._open):
                    connection.cut_if_unread()
        finally:
            listener.close()
            tasks = [*self._taking, *(connection.abort() for connection in self._open)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def began(self, connection: "_Connection") -> None:
        """Add a connection; if its origin has too many, close the oldest."""
        same = [each for each in self._open if each.origin == connection.origin]
        if len(same) >= MOST_CONNECTIONS:
            same[0].abort()
            self.ended(same[0])
        self._open[connection] = None

    def ended(self, connection: "_Connection") -> None:
        """Forget a connection."""
        self._open.pop(connection, None)

    def failed(self, error: Exception) -> None:
        """Report an error of our own; clients' errors are not logged: they may be any number."""
        where = "".join(traceback.format_exception(error))
        self._bus.publish(ErrorUnhandled(problem="a request could not be answered", where=where))

    def _arrived(self, connection: socket.socket, _peer: Peer) -> None:
        task = asyncio.create_task(self._take(connection))
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)

    async def _take(self, connection: socket.socket) -> None:
        try:
            origin = self.manners.origin(connection)
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: _Connection(self, origin), connection)
        except OSError:
            connection.close()


class _TooLarge(Exception):
    """The body of a request is too large."""


class _Connection(asyncio.Protocol):
    """One client's connection: requests and answers, until either side closes it."""

    def __init__(self, server: Server, origin: int) -> None:
        self.origin = origin
        self._server = server
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
        self._method = ""
        self._came = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._unread = 0
        """Bytes that the client had not read at the last look."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start serving the client."""
        self._transport = cast(asyncio.Transport, transport)
        self._server.began(self)
        self._talk = asyncio.create_task(self._run())

    def data_received(self, data: bytes) -> None:
        """Queue the received data."""
        self._http.receive_data(data)
        self._came.set()
        if len(self._http.trailing_data[0]) > MOST_AHEAD:
            self.abort()

    def connection_lost(self, _: Exception | None) -> None:
        """Cancel the client's request."""
        self._talk.cancel()
        self._server.ended(self)

    def pause_writing(self) -> None:
        """Stop building pieces for now."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Continue building pieces."""
        self._writable.set()

    def abort(self) -> "asyncio.Task[None]":
        """Close it now, even with unsent data; returns its task, which is ending."""
        self._transport.abort()
        return self._talk

    def cut_if_unread(self) -> None:
        """Close it if the client has read nothing since the last call."""
        unread = self._transport.get_write_buffer_size()
        if unread and unread == self._unread:
            self.abort()
        self._unread = unread

    async def _run(self) -> None:
        try:
            while await self._converse():
                self._http.start_next_cycle()
                # Pipelined requests must not delay other clients.
                await asyncio.sleep(0)
        except Exception as error:
            self._server.failed(error)
            await self._refuse("an error in the agent: see its log", 500)
        finally:
            self._transport.close()

    async def _converse(self) -> bool:
        """Answer one request; False if it was the last one of this connection."""
        try:
            async with asyncio.timeout(self._server.manners.keepalive):
                request = await self._request()
        except TimeoutError:
            return False
        except _TooLarge:
            await self._refuse(f"more than {self._server.manners.longest_body} bytes", 413)
            return False
        except h11.RemoteProtocolError as error:
            await self._refuse(str(error), error.error_status_hint)
            return False
        if request is None:
            return False
        await self._send(await self._server.handler(request))
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _request(self) -> Request | None:
        """The next request, or None at the end. Raises the errors that `_converse` answers."""
        self._method = ""
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        self._method = head.method.decode("ascii")
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > self._server.manners.longest_body:
                raise _TooLarge
        peer = self._transport.get_extra_info("peername")
        return Request(
            self._method,
            head.target.decode("ascii"),
            {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers},
            bytes(body),
            peer[0] if isinstance(peer, tuple) else "",
            self._transport.get_extra_info("socket"),
        )

    async def _event(self) -> h11.Event | None:
        """The next event of a request, or None at the end."""
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event if isinstance(event, h11.Event) else None
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self._transport.write(self._http.send(go_on) or b"")
            self._came.clear()
            await self._came.wait()

    async def _refuse(self, problem: str, status: int) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._send(self._server.refusal(problem, status))
        else:
            self.abort()  # in the middle of an answer: it must not look complete

    async def _send(self, answer: Answer) -> None:
        headers = {"Content-Type": answer.kind, "Date": formatdate(time.time(), usegmt=True)}
        pieces = answer.body
        if isinstance(pieces, bytes):
            headers["Content-Length"] = str(len(pieces))
            pieces = (pieces,)
        headers.update(answer.headers)
        reason = HTTPStatus(answer.status).phrase.encode()
        head = h11.Response(status_code=answer.status, headers=[*headers.items()], reason=reason)
        unsent = self._http.send(head) or b""
        for piece in () if self._method == "HEAD" else pieces:
            # The head goes with the first piece.
            self._transport.write(unsent + (self._http.send(h11.Data(data=piece)) or b""))
            unsent = b""
            await self._writable.wait()
        self._transport.write(unsent + (self._http.send(h11.EndOfMessage()) or b""))
        if answer.sent is not None:
            answer.sent()
