"""An HTTP client, for probes of services and the platform's API on its Unix socket."""

import asyncio
import importlib
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

import h11

MOST_REDIRECTS = 10
LONGEST_ANSWER = 1 << 20
"""The largest body of an answer, in bytes."""

_CHUNK = 64 << 10
_REDIRECTS = (301, 302, 303, 307, 308)


class FetchError(Exception):
    """There is no answer, or no usable one; the message says why."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request."""

    status: int
    location: str
    """Where a redirect leads."""
    body: bytes


async def fetch(
    method: str, url: str, *, unix: str | None = None, redirects: bool = False, body: bool = True
) -> Reply:
    """Send one request, over the Unix socket `unix` if given; without `body` read only the header.

    With `redirects`, follow them with GET. There is no time limit. Raises `FetchError`, `OSError`.
    """
    for _ in range(MOST_REDIRECTS):
        try:
            reply = await _once(method, urlsplit(url), unix, body)
        except (h11.ProtocolError, ValueError) as error:
            raise FetchError(f"{url}: {error}") from error
        if not redirects or reply.status not in _REDIRECTS or not reply.location:
            return reply
        method, url = "GET", urljoin(url, reply.location)
    raise FetchError(f"more than {MOST_REDIRECTS} redirects, the last one to {url}")


async def _once(method: str, url: SplitResult, unix: str | None, body: bool) -> Reply:
    reader, writer = await _connect(url, unix)
    try:
        http = h11.Connection(h11.CLIENT)
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = [("Host", url.netloc.rpartition("@")[2]), ("User-Agent", "swarm-agent")]
        headers += [("Connection", "close")] + [("Content-Length", "0")] * (method != "GET")
        writer.write(http.send(h11.Request(method=method, target=target, headers=headers)) or b"")
        writer.write(http.send(h11.EndOfMessage()) or b"")
        return await _reply(http, reader, body)
    finally:
        writer.close()


async def _reply(http: h11.Connection, reader: asyncio.StreamReader, body: bool) -> Reply:
    status, location, content = 0, "", bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Response):
            status = event.status_code
            location = dict(event.headers).get(b"location", b"").decode("latin-1")
            if not body:
                return Reply(status, location, b"")
        elif isinstance(event, h11.Data):
            content += event.data
            if len(content) > LONGEST_ANSWER:
                raise ValueError(f"the answer has more than {LONGEST_ANSWER} bytes")
        elif not isinstance(event, h11.InformationalResponse):
            return Reply(status, location, bytes(content))


async def _connect(
    url: SplitResult, unix: str | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if unix is not None:
        return await asyncio.open_unix_connection(unix)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("not an http or https address")
    if url.scheme == "http":
        return await asyncio.open_connection(url.hostname, url.port or 80)
    # Few need TLS, and the agent imports asyncio without it (agent/__main__.py).
    import ssl
    from asyncio import sslproto

    if getattr(sslproto, "ssl", None) is None:
        importlib.reload(sslproto)
    context = ssl.create_default_context()
    return await asyncio.open_connection(url.hostname, url.port or 443, ssl=context)
