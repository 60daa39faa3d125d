"""Groups of processes that none of their members can leave (cgroups, version 2).

Where we may not make any (most containers, ordinary users), there are none, and whoever asks knows
the members by other means. A group has no limits; it only says who belongs to it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from agent.init.proctree import control_groups

MOUNTS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
PREFIX = "swarm-agent."


@contextmanager
def born_in(name: str) -> Iterator[str | None]:
    """Whatever is started inside belongs to a new group: its folder; None where there are none.

    We are in it meanwhile, so that no process is ever out of it.
    """
    folder = _enter(name)
    try:
        yield folder
    finally:
        if folder is not None:
            _leave(folder)
            remove(folder)  # where nothing started


def members(folder: str) -> set[int]:
    """The living processes of a group, and of the groups that these have made below it."""
    found: set[int] = set()
    for below, _, _ in os.walk(folder):
        with suppress(OSError), open(f"{below}/cgroup.procs", encoding="ascii") as file:
            found |= {int(pid) for pid in file.read().split()}
    return found


def remove(folder: str) -> None:
    """Forget a group; one that still has processes stays."""
    for below, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(below)


def _enter(name: str) -> str | None:
    own = _own()
    if own is None:
        return None
    folder = f"{own}/{PREFIX}{name}.{os.urandom(4).hex()}"
    try:
        os.mkdir(folder)
        _write(f"{folder}/cgroup.procs", "0")
    except OSError:
        remove(folder)
        return None
    return folder


def _leave(folder: str) -> None:
    # Where that fails we stay: who asks for the members of a service knows that we are none.
    with suppress(OSError):
        _write(f"{os.path.dirname(folder)}/cgroup.procs", "0")


@cache
def _own() -> str | None:
    """The folder of the group that we are in, once what earlier agents have left is removed."""
    path = next((path for controllers, path in control_groups() if not controllers), None)
    for mount in MOUNTS:
        own = f"{mount}{path}".rstrip("/")
        if path is not None and os.path.exists(f"{own}/cgroup.subtree_control"):
            for left in os.listdir(own):
                if left.startswith(PREFIX):
                    remove(f"{own}/{left}")
            return own
    return None


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
