"""Asking the running agent, over its control socket."""

import http.client
import os
import signal
import socket
import time
from typing import TypeVar

import click
import msgspec

from agent import safe
from agent.settings import SettingsError, load

T = TypeVar("T")

TIMEOUT = 10.0
STARTS = 8.0
"""Seconds that an agent whose run folder is in place may take until it answers."""

CONFIG = "sshd_config"


class _Refused(msgspec.Struct, frozen=True):
    error: str


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


def get(path: str, shape: type[T]) -> T:
    """What the agent answers. Raises `click.ClickException` in the user's words."""
    return ask("GET", path, shape)


def ask(method: str, path: str, shape: type[T], order: object = None) -> T:
    """Have the agent do something, and what it answers. Raises `click.ClickException`."""
    body = None if order is None else msgspec.json.encode(order)
    answer = safe.record(msgspec.json.decode(_request(method, path, body)))
    return msgspec.convert(answer, shape)


def _request(method: str, path: str, content: bytes | None) -> bytes:
    where = f"{run_dir()}/agent.sock"
    connection = _UnixConnection(where)
    try:
        _connect(connection, where)
        connection.request(method, path, body=content)
        answer = connection.getresponse()
        body = answer.read()
    except PermissionError:
        raise click.ClickException(
            f"{where}: only root and the login account may ask the agent"
        ) from None
    except OSError as error:
        raise click.ClickException(
            f"the agent does not answer at {where} ({error.strerror or error}): "
            "is swarm-agent running here? (SWARM_RUN_DIR names another folder)"
        ) from error
    finally:
        connection.close()
    if answer.status >= http.client.BAD_REQUEST and not path.endswith("/health"):
        reason = safe.line(msgspec.json.decode(body, type=_Refused).error)
        raise click.ClickException(f"the agent refused: {reason}")
    return body


def _connect(connection: _UnixConnection, where: str) -> None:
    """Connect, and wait for a machine that has just started: SSH is open before the socket is."""
    starting = os.path.exists(f"{os.path.dirname(where)}/{CONFIG}")
    end = time.monotonic() + (STARTS if starting else 0.0)
    while True:
        try:
            return connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def run_dir() -> str:
    """Where the agent keeps its socket: root's usual place unless the settings name another.

    Inside an SSH session the agent's own settings are not in the environment.
    """
    try:
        settings = load(os.environ, privileged=True).settings
        unprivileged = load(os.environ, privileged=False).settings
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    if os.path.exists(settings.run_dir) or os.geteuid() == 0:
        return settings.run_dir
    return unprivileged.run_dir


def end_at_once_on_interrupt() -> None:
    """Let Ctrl-C end a command that goes on for ever.

    As an exception it may come up where nobody can catch it, such as in a destructor, and be lost.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def to_json(value: object) -> str:
    """A report as people read JSON."""
    return msgspec.json.format(msgspec.json.encode(value)).decode()
