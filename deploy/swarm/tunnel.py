"""Tunnels into a machine's network: its status page, and a private machine's SSH port."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from deploy.swarm import ssh, template
from deploy.swarm.fly import Fly
from deploy.swarm.flyerrors import FlyError
from deploy.swarm.place import Place

PAGE_PORT = 9091
PATIENCE = 60.0
_CHUNK = 1 << 16


@contextmanager
def to_page(where: Place) -> Iterator[str]:
    """The address of the machine's status page on this laptop. Raises `FlyError`."""
    port = free_port()
    own = where.state().env.get("SWARM_HTTP_LISTEN", "").rpartition(":")[2]
    forward = f"127.0.0.1:{port}:localhost:{own or PAGE_PORT}"
    options = ["-N", "-o", "ExitOnForwardFailure=yes", "-o", "BatchMode=yes", "-L", forward]
    words = [*ssh.command(where, (), options)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            _until_open(port, process)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


def hold() -> None:
    """Wait for Ctrl-C."""
    with suppress(KeyboardInterrupt):
        signal.pause()


def relay(fly: Fly, app: str) -> None:
    """Connect standard input and output to the machine's private SSH port, by `fly proxy`.

    ssh ends its ProxyCommand with a signal: the proxy must end with it.
    """
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(1))
    port = free_port()
    words = ["proxy", f"{port}:{template.PRIVATE_PORT}", "--app", app, "--quiet"]
    process = fly.start_of(*words, "--bind-addr", "127.0.0.1")
    try:
        with _until_open(port, process) as connection:
            threading.Thread(target=_to, args=(connection,), daemon=True).start()
            while data := connection.recv(_CHUNK):
                os.write(sys.stdout.fileno(), data)
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """An unused TCP port of this laptop."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _to(connection: socket.socket) -> None:
    with suppress(OSError):
        while data := os.read(sys.stdin.fileno(), _CHUNK):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def _until_open(port: int, process: "subprocess.Popen[bytes]") -> socket.socket:
    """Connect to the tunnel's port as soon as it accepts connections. Raises `FlyError`."""
    end = time.monotonic() + PATIENCE
    while True:
        with suppress(OSError):
            return socket.create_connection(("127.0.0.1", port))
        if process.poll() is not None or time.monotonic() > end:
            process.terminate()
            said = process.communicate()[1].decode(errors="replace").strip()
            raise FlyError(f"the tunnel does not open: {said[-400:]}")
        time.sleep(0.05)
