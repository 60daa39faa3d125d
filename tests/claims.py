"""Ports and numbers that test runs beside each other must not share.

A claim is the name of an abstract Unix socket: every account of this computer sees it, it belongs
to the same network namespace as the ports, and the kernel frees it when its process ends.
"""

import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import cycle
from pathlib import Path

SHARED = "TESTS_SHARED"
"""The environment variable that tells workers a folder for what they share; `tests.conftest` makes
and removes it."""

_FIRST, _LAST, _BLOCK = 20_000, 32_000, 200
"""Below Linux's ephemeral ports (32768 upwards): no outgoing connection takes one of ours."""


def claim(kind: str, numbers: Iterable[int]) -> tuple[int, socket.socket]:
    """The first of `numbers` that no other process has, held until the socket is closed."""
    for number in numbers:
        holder = socket.socket(socket.AF_UNIX)
        try:
            holder.bind(f"\0swarm-tests/{kind}/{number}")
        except OSError:
            holder.close()
        else:
            return number, holder
    raise RuntimeError(f"every {kind} is claimed by another test run")


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock among all test runs, so that shared things are created once."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker of a test run makes, for all of them. None may change it."""
    path = Path(os.environ[SHARED], name)
    with alone(path.with_name(f"{name}.lock")):
        if not path.exists():
            unfinished = path.with_name(f"{name}.new")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(path)
    return path


def free_port() -> int:
    """A TCP port of the loopback that nobody uses; this process gets it again after 199 others."""
    ports = _own_ports()
    for _ in range(_BLOCK):
        port = next(ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"all {_BLOCK} ports of this test run are in use")


@cache
def _own_ports() -> Iterator[int]:
    block, holder = claim("ports", range(_FIRST, _LAST, _BLOCK))
    with holder:
        yield from cycle(range(block, block + _BLOCK))
