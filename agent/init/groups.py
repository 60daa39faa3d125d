"""Groups of processes that none of their members can leave (cgroups, version 2).

Where we may not create groups (most containers, ordinary users), there are none, and callers find
the processes by other means. A group sets no limits; it only records its members.
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
    """Put processes that are started in this context into a new group; yields its folder, or None.

    This process is in the group meanwhile, so that no child is ever outside of it.
    """
    folder = _enter(name)
    try:
        yield folder
    finally:
        if folder is not None:
            _leave(folder)
            remove(folder)  # if nothing was started


def members(folder: str) -> set[int]:
    """The living processes of a group and of all groups below it."""
    found: set[int] = set()
    for below, _, _ in os.walk(folder):
        with suppress(OSError), open(f"{below}/cgroup.procs", encoding="ascii") as file:
            found |= {int(pid) for pid in file.read().split()}
    return found


def remove(folder: str) -> None:
    """Remove a group; one that still has processes stays."""
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
    # If that fails we stay in it: a service never counts processes older than itself.
    with suppress(OSError):
        _write(f"{os.path.dirname(folder)}/cgroup.procs", "0")


@cache
def _own() -> str | None:
    """The folder of our own group, after groups left by earlier agents are removed."""
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
