"""What is asked, and what is answered."""

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

JSON = "application/json"


class BadRequest(Exception):
    """What was asked cannot be understood; the message says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. `target` is its path and query as they were sent, still quoted."""

    method: str
    target: str
    headers: Mapping[str, str]
    """By name, in lower case; the last one of a name."""
    body: bytes
    remote: str
    """The address of who asks; empty on a Unix socket."""
    connection: socket.socket
    """Tells who asks; not to be read or written."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """What stands in the path in the places that its route names, unquoted."""

    @property
    def path(self) -> str:
        """The path as it was sent."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """What follows the path, unquoted."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. A body in pieces is made and sent piece by piece, as fast as its reader reads."""

    body: bytes | Iterable[bytes]
    status: int = 200
    kind: str = JSON
    """Its Content-Type."""
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: Callable[[], None] | None = None
    """Called once all of it is on its way."""
