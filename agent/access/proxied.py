"""Reads the PROXY header of one connection: exactly its bytes, within a time limit."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from agent.access.admission import Refusal
from agent.access.proxy_header import HeaderError, Source, parse, wanted
from agent.access.values import Client

TIMEOUT = 3.0
"""Seconds a header may take (the specification asks for at least 3)."""


@dataclass(slots=True, eq=False)
class HeaderRecord:
    """A connection from the proxy, and the part of its header received so far."""

    socket: socket.socket
    proxy: Client
    data: bytes = b""


class HeaderWait:
    """Waits for the header, then calls exactly one of `on_source` and `on_refusal`."""

    def __init__(
        self,
        record: HeaderRecord,
        on_source: Callable[["HeaderWait", Source | None], None],
        on_refusal: Callable[["HeaderWait", Refusal, str], None],
    ) -> None:
        self.record = record
        self.connection = record.socket
        self._on_source = on_source
        self._on_refusal = on_refusal
        self._loop = asyncio.get_running_loop()
        self.connection.setblocking(False)
        self._loop.add_reader(self.connection, self._read)
        self._timer = self._loop.call_later(
            TIMEOUT, self._refuse, Refusal.SLOW_HEADER, f"not complete after {TIMEOUT:g} s"
        )

    def stop(self) -> None:
        """Stop waiting. The connection belongs to the caller again."""
        self._timer.cancel()
        self._loop.remove_reader(self.connection)

    def _read(self) -> None:
        try:
            while missing := wanted(self.record.data):
                received = self.connection.recv(missing)
                if not received:
                    self._ended()
                    return
                self.record.data += received
            source = parse(self.record.data)
        except (BlockingIOError, InterruptedError):
            return
        except HeaderError as error:
            self._refuse(Refusal.BAD_HEADER, str(error))
            return
        except OSError:
            self._ended()
            return
        self.stop()
        self._on_source(self, source)

    def _ended(self) -> None:
        if self.record.data:
            self._refuse(Refusal.BAD_HEADER, "the connection ended within the header")
        else:
            self._refuse(Refusal.NO_HEADER, "")

    def _refuse(self, refusal: Refusal, detail: str) -> None:
        self.stop()
        self._on_refusal(self, refusal, detail)
