"""Services that people really run: a database from Debian, an MCP server from npm."""

import asyncio
import socket
from pathlib import Path

import pytest

from tests.claims import free_port
from tests.services import Services

pytestmark = pytest.mark.root

TOOLS = Path(__file__).resolve().parents[1] / "tools" / "node_modules" / ".bin"


def test_a_real_redis(services: Services) -> None:
    port = free_port()
    services.boot(
        f"""
        [service.redis]
        command = "redis-server --port {port} --bind 127.0.0.1 --save ''"
        cwd = "/tmp"
        ready = {{command = "redis-cli -p {port} ping"}}
        health = {{tcp = {port}, interval = "200ms"}}
        """
    )
    services.becomes("redis", "running")
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"SET a 42\r\nGET a\r\n")
        answer = b""
        while b"42" not in answer:
            answer += client.recv(100)
    assert services.box.stop() == 0
    assert services.box.event("service.said", service="redis")
    said = " ".join(event["line"] for event in services.box.events("service.said"))
    assert "Received SIGTERM" in said
    assert "bye bye" in said


def test_a_real_mcp_server(services: Services) -> None:
    """The protocol's reference server over HTTP: ready, used by a real client, stopped."""
    # Not for every worker: it takes 0.6 s.
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    port = free_port()
    services.boot(
        f"""
        [service.mcp]
        command = ["{TOOLS}/mcp-server-everything", "streamableHttp"]
        env = {{PORT = "{port}"}}
        ready = {{tcp = {port}}}
        """
    )
    services.becomes("mcp", "running")

    async def use() -> tuple[list[str], str]:
        url = f"http://127.0.0.1:{port}/mcp"
        async with (
            streamable_http_client(url) as (reading, writing),
            ClientSession(reading, writing) as session,
        ):
            await session.initialize()
            tools = await session.list_tools()
            result = await session.call_tool("echo", {"message": "from the laptop"})
            return [tool.name for tool in tools.tools], str(result.content)

    names, said = asyncio.run(use())
    assert "echo" in names
    assert "from the laptop" in said
    assert services.box.agent("stop", "mcp").stdout == "mcp is inactive\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
