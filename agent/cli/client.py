"""Asks the running agent, over its control socket.

Scripts and prompts run commands often: this module imports neither http.client nor the settings,
which would cost more time than the request.
"""

import os
import signal
import socket
import time
from itertools import pairwise
from typing import TypeVar

import click
import msgspec

from agent import places, safe

T = TypeVar("T")

TIMEOUT = 10.0
STARTS = 8.0
"""Seconds that a starting agent may take until it answers."""

_CHUNK = 65536
_CUT = "its answer was cut off"


class _Refused(msgspec.Struct, frozen=True):
    error: str


def get(path: str, shape: type[T]) -> T:
    """The agent's answer. Raises `click.ClickException` with a message for the user."""
    return ask("GET", path, shape)


def ask(method: str, path: str, shape: type[T], order: object = None) -> T:
    """Send an order to the agent; returns its answer. Raises `click.ClickException`."""
    body = b"" if order is None else msgspec.json.encode(order)
    try:
        answer = safe.record(msgspec.json.decode(_request(method, path, body)))
    except msgspec.DecodeError as error:
        raise click.ClickException(f"the agent does not answer: {_CUT}") from error
    return msgspec.convert(answer, shape)


def quoted(text: str) -> str:
    """Text, encoded for a path or a query."""
    from urllib.parse import quote  # costs more than the rest of this module

    return quote(text, safe="")


def answers() -> bool:
    """Whether an agent answers on the socket now."""
    try:
        _connect(f"{run_dir()}/{places.SOCKET}", patience=0.0).close()
    except OSError:
        return False
    return True


def _request(method: str, path: str, content: bytes) -> bytes:
    where = f"{run_dir()}/{places.SOCKET}"
    # Version 1.0, so that the answer ends with the connection and is never sent in chunks.
    head = f"{method} {path} HTTP/1.0\r\nHost: agent\r\nContent-Length: {len(content)}\r\n\r\n"
    try:
        with _connect(where, STARTS) as connection:
            connection.sendall(head.encode() + content)
            status, body = _read(connection)
    except PermissionError:
        raise click.ClickException(
            f"{where}: only root and the login account may ask the agent"
        ) from None
    except OSError as error:
        raise click.ClickException(
            f"no agent answers at {where} ({error.strerror or error}):\n"
            "is swarm-agent running here? (SWARM_RUN_DIR names another folder)"
        ) from error
    if status >= 400 and not path.endswith("/health"):
        raise click.ClickException(
            f"the agent refused: {safe.line(msgspec.json.decode(body, type=_Refused).error)}"
        )
    return body


def _read(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the answer. Raises `OSError` if it is incomplete."""
    answer = bytearray()
    while chunk := connection.recv(_CHUNK):
        answer += chunk
    head, end, body = bytes(answer).partition(b"\r\n\r\n")
    if not end:
        raise OSError(_CUT)  # the agent re-executed, or exited, meanwhile
    lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    # A long answer is built while it is sent, and has no length.
    if len(body) != int(fields.get("content-length", len(body))):
        raise OSError(_CUT)
    return int(lines[0].split()[1]), body


def _connect(where: str, patience: float) -> socket.socket:
    """Connect, and wait for an agent that has just started: SSH is open before the socket is."""
    end = time.monotonic() + patience
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT)
        try:
            connection.connect(where)
        except OSError as error:
            connection.close()
            coming = isinstance(error, FileNotFoundError | ConnectionRefusedError)
            if not coming or time.monotonic() > end or not _starts(os.path.dirname(where)):
                raise
            time.sleep(0.05)
        else:
            return connection


def _starts(folder: str) -> bool:
    """Whether an agent with this run folder is probably starting.

    Its sshd configuration exists, and some process is an agent; but that may be another agent.
    """
    if not os.path.exists(f"{folder}/{places.SSHD_CONFIG}"):
        return False
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                argv = file.read(4096).split(b"\0")
        except OSError:
            continue  # the process exited, or /proc hides it
        if any(
            word.rpartition(b"/")[2] == b"swarm-agent" and following == b"run"
            for word, following in pairwise(argv)
        ):
            return True
    return False


def run_dir() -> str:
    """The folder of the agent's socket: root's default unless the settings name another.

    An SSH session does not have the agent's own settings in its environment.
    """
    if "SWARM_RUN_DIR" in os.environ:
        return os.environ["SWARM_RUN_DIR"]
    if "SWARM_CONFIG" in os.environ or os.path.exists(places.CONFIG):
        return _run_dir_of_settings()
    if os.path.exists(places.RUN_DIR) or os.geteuid() == 0:
        return places.RUN_DIR
    return os.path.expanduser(places.RUN_DIR_UNPRIVILEGED)


def _run_dir_of_settings() -> str:
    from agent.settings import SettingsError, load

    try:
        settings = load(os.environ, privileged=True).settings
        unprivileged = load(os.environ, privileged=False).settings
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    if os.path.exists(settings.run_dir) or os.geteuid() == 0:
        return settings.run_dir
    return unprivileged.run_dir


def end_at_once_on_interrupt() -> None:
    """Let Ctrl-C kill a command that runs until then.

    KeyboardInterrupt may be raised where nothing catches it, such as in a destructor, and be lost.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def to_json(value: object) -> str:
    """A report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value)).decode()
