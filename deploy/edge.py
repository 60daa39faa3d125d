"""A stand-in for the platform's edge: takes TCP connections and relays them to the machine,
with a PROXY protocol header that names the client.

It imitates what Fly.io's proxy does with `handlers = ["proxy_proto"]` for raw TCP, and nothing
else: no TLS, no load balancing, no limits.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from deploy.header import header

CHUNK = 256 << 10

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[str], Awaitable[Streams]]
"""Connects to the machine for the client with this address. Raises `OSError`."""


class Edge:
    """Relays each connection to the machine, which `connect` may have to start first."""

    def __init__(self, connect: Connect, version: int = 2) -> None:
        self._connect = connect
        self._version = version
        # The event loop itself keeps no strong reference to a task.
        self._relays: set[asyncio.Task[None]] = set()

    async def serve(self, host: str, port: int) -> None:
        """Relay until cancelled. Raises `OSError` when it cannot listen."""
        server = await asyncio.start_server(self._arrived, host, port, backlog=1024, limit=CHUNK)
        async with server:
            await server.serve_forever()

    def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = asyncio.create_task(self._relay(reader, writer))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source, local = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        if source is None:
            writer.close()  # the client has gone already
            return
        try:
            inner_reader, inner_writer = await self._connect(source[0])
        except OSError:
            writer.close()
            return
        inner_writer.write(header(self._version, source[:2], local[:2]))
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        for end in (writer, inner_writer):
            end.close()
            with suppress(OSError):
                await end.wait_closed()


def to_port(port: int) -> Connect:
    """Connects to a machine that is always awake."""

    async def connect(_client: str) -> Streams:
        return await asyncio.open_connection("127.0.0.1", port, limit=CHUNK)

    return connect


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, and forward how it ended: a close as a close, a reset as a reset."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()


def main() -> None:
    """`python -m deploy.edge HOST PORT TARGET-PORT [--version 1]`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("target", type=int, help="the machine's port on 127.0.0.1")
    parser.add_argument("--version", type=int, choices=(1, 2), default=2)
    words = parser.parse_args()
    edge = Edge(to_port(words.target), words.version)
    with suppress(KeyboardInterrupt):
        asyncio.run(edge.serve(words.host, words.port))


if __name__ == "__main__":
    main()
