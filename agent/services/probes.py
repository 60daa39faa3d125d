"""Probes a service once; provides the socket on which it reports itself ready."""

import asyncio
import os
import shlex
import socket
from collections.abc import Sequence
from contextlib import suppress

from agent import safe
from agent.init.children import Children, NotDone
from agent.platform.account import credentials_of, environment_of
from agent.services.definition import Check, Service

HTTP_OK = range(200, 300)
HTTP_REDIRECT = range(300, 400)
SAID = 300
"""Longest description of a problem, in characters."""


async def look(check: Check, service: Service, children: Children, patience: float) -> str | None:
    """The problem, or None if the service answers within `patience` seconds."""
    try:
        async with asyncio.timeout(patience):
            problem = await _look(check, service, children, patience)
    except TimeoutError:
        problem = f"no answer within {patience:g} s"
    except Exception as error:  # any error while probing counts as no answer
        problem = f"{check.http or 'the probe'}: {type(error).__name__}: {error}"
    # It may contain text from the program that answered.
    return None if problem is None else safe.line(problem, SAID)


async def _look(check: Check, service: Service, children: Children, patience: float) -> str | None:
    if check.tcp is not None:
        return await _tcp(check.tcp)
    if check.http is not None:
        return await _http(check.http, follow=check.redirects)
    if check.command is not None:
        return await _command(check.command, service, children, patience)
    if check.file is not None:
        return None if os.path.lexists(check.file) else f"{check.file} is missing"
    return "it has not sent READY=1"


async def _tcp(port: int) -> str | None:
    for host in ("127.0.0.1", "::1"):
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return None
    return f"port {port} does not answer"


async def _http(url: str, *, follow: bool) -> str | None:
    from agent.http.fetch import fetch

    reply = await fetch("GET", url, redirects=follow, body=False)
    if reply.status in HTTP_OK:
        return None
    said = f"{url}: status {reply.status}"
    if reply.status in HTTP_REDIRECT and not follow:
        there = reply.location or "nowhere"
        return f"{said}, a redirect to {there}: probe that, or set redirects = true"
    return said


async def _command(
    words: Sequence[str], service: Service, children: Children, patience: float
) -> str | None:
    line = shlex.join(words)
    try:
        done = await children.run(
            words,
            env=environment_of(service.user) | dict(service.env),
            patience=patience,
            cwd=service.cwd,
            run_as=credentials_of(service.user),
        )
    except NotDone as error:
        return str(error)
    except OSError as error:
        return f"{line}: {error.strerror}"
    return None if done.status.code == 0 else f"{line}: {done.status}"


class Notify:
    """The socket of sd_notify(3): a datagram with READY=1 sets `ready`."""

    def __init__(self, path: str, listening: socket.socket) -> None:
        self._path = path
        self._socket = listening
        self.ready = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        """Stop listening."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            if b"READY=1" in self._socket.recv(4096).split(b"\n"):
                self.ready.set()


def listen(path: str, uid: int) -> socket.socket:
    """Create the socket at `path` for `Notify`; the account `uid` may use it. Raises `OSError`."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bound.setblocking(False)
    bound.bind(path)
    os.chmod(path, 0o600)
    if os.geteuid() == 0:
        os.chown(path, uid, -1)
    return bound
