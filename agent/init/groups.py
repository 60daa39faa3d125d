"""Groups of processes that none of their members can leave (cgroups, version 2).

Where we may not make any (most containers, ordinary users), there are none, and whoever asks knows
the members by other means. A group has no limits; it only says who belongs to it.
"""

import os
from contextlib import suppress
from functools import cache

MOUNTS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
PREFIX = "swarm-agent."


def make(name: str) -> str | None:
    """A new group; its folder, or None where there are no groups."""
    own = _own()
    if own is None:
        return None
    folder = f"{own}/{PREFIX}{name}.{os.urandom(4).hex()}"
    try:
        os.mkdir(folder)
        # The first move after a pause takes the kernel some 10 ms: not the one that counts.
        _write(f"{own}/cgroup.procs", "0")
    except OSError:
        return None
    return folder


def add(folder: str, pid: int) -> None:
    """Take in a process, and with it all that it starts from now on. Raises `OSError`."""
    _write(f"{folder}/cgroup.procs", str(pid))


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


@cache
def _own() -> str | None:
    """The folder of the group that we are in, once what earlier agents have left is removed."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
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
