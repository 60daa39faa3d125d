"""flyctl's logs and its proxy into the private network."""

import http.client
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable

import msgspec

from deploy.local.client import Client, FlyError, RefusedError
from deploy.local.surface import Call

_LOG_EVERY = 1.0


class _Entry(msgspec.Struct, frozen=True):
    message: str
    timestamp: str = ""


class _Attributes(msgspec.Struct, frozen=True):
    attributes: _Entry


class _Meta(msgspec.Struct, frozen=True):
    next_token: str = ""


class _Logs(msgspec.Struct, frozen=True):
    data: list[_Attributes]
    meta: _Meta


class _Port(msgspec.Struct, frozen=True):
    port: int


def _logs(call: Call) -> None:
    """The last lines, then new ones unless --no-tail; formatted as flyctl does."""
    client = Client()
    token = ""
    while True:
        path = f"/apps/{call.app}/logs?next_token={token}"
        found = client.uiex(_Logs, "GET", path)
        for each in found.data:
            line = each.attributes
            if "--json" in call.flags:
                said = {"timestamp": line.timestamp, "message": line.message}
                print(msgspec.json.encode(said).decode())
            else:
                print(f"{line.timestamp} app[{call.app}] [info]{line.message}")
        sys.stdout.flush()
        token = found.meta.next_token
        if "--no-tail" in call.flags:
            return
        time.sleep(_LOG_EVERY)


def _proxy(call: Call) -> None:
    """`LOCAL:REMOTE`: forward a local port into the app's private network."""
    local, _, remote = call.words[0].partition(":")
    client = Client()
    server = socket.create_server((call.flags.get("--bind-addr", "127.0.0.1"), int(local)))
    if "--quiet" not in call.flags:
        print(f"Proxying localhost:{local} to remote [{call.app}.internal]:{remote or local}")
    while True:
        connection, _ = server.accept()
        port = _private_port(client, call.app, int(remote or local))
        inner = socket.create_connection(("127.0.0.1", port))
        for source, target in ((connection, inner), (inner, connection)):
            threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _private_port(client: Client, app: str, port: int) -> int:
    try:
        return client.stand_in(_Port, f"/apps/{app}/ports/{port}").port
    except (RefusedError, http.client.HTTPException) as error:
        raise FlyError(f"error connecting to {app}.internal: {error}") from error


def _pump(source: socket.socket, target: socket.socket) -> None:
    with source.makefile("rb", buffering=0) as reading, target.makefile("wb", buffering=0) as out:
        try:
            shutil.copyfileobj(reading, out)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            target.close()


COMMANDS: dict[str, Callable[[Call], None]] = {"fly logs": _logs, "fly proxy": _proxy}
