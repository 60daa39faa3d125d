"""Requests and answers of HTTP."""

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

JSON = "application/json"


class BadRequest(Exception):
    """The request cannot be understood; the message says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """A complete request. `target` is its path and query as sent, still quoted."""

    method: str
    target: str
    headers: Mapping[str, str]
    """Header fields by lower-case name; of repeated ones, the last."""
    body: bytes
    remote: str
    """The client's address; empty on a Unix socket."""
    connection: socket.socket
    """Identifies the client; not to be read or written."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """The values of the route's `{name}` segments, unquoted."""

    @property
    def path(self) -> str:
        """The path as sent."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The query, unquoted."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. A body in pieces is built and sent piece by piece, as fast as the client reads."""

    body: bytes | Iterable[bytes]
    status: int = 200
    kind: str = JSON
    """Its Content-Type."""
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: Callable[[], None] | None = None
    """Called once the whole answer is sent."""
