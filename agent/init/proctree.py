"""The processes below us, read from /proc.

sshd calls setsid for every connection, so no process group reaches the sessions, and kill(-1)
on Fly.io would reach the platform's own processes. So we walk our descendants.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from agent import safe

_PF_KTHREAD = 0x00200000  # linux/sched.h


@dataclass(frozen=True, slots=True)
class Process:
    """Some fields of /proc/PID/stat.

    `started` (clock ticks since the kernel's boot) distinguishes it from a later process with the
    same id. `cpu` is the time used by it and the children it has waited for, in clock ticks.
    """

    pid: int
    parent: int
    state: str
    command: str
    group: int
    session: int
    kernel: bool
    started: int
    cpu: int


def read_process(pid: int) -> Process | None:
    """The process, or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The command stands in parentheses and may itself contain any byte (proc_pid_stat(5)).
    head, _, tail = text.rpartition(b")")
    rest = tail.split()
    return Process(
        pid,
        parent=int(rest[1]),
        state=rest[0].decode("ascii"),
        command=safe.decoded(head.partition(b"(")[2]),
        group=int(rest[2]),
        session=int(rest[3]),
        kernel=bool(int(rest[6]) & _PF_KTHREAD),
        started=int(rest[19]),
        cpu=sum(map(int, rest[11:15])),
    )


def ignores(pid: int, number: int) -> bool:
    """The process ignores this signal; False where it is gone."""
    try:
        return bool(mask(pid, "SigIgn") >> (number - 1) & 1)
    except OSError:
        return False


def mask(pid: int, name: str) -> int:
    """A mask in a process's status, such as `SigIgn` or `CapEff`. Raises `OSError`."""
    with open(f"/proc/{pid}/status", "rb") as file:
        fields = dict(line.split(b":", 1) for line in file if b":" in line)
    return int(fields[name.encode()], 16)


def open_files(pid: int) -> Iterator[str]:
    """The target of each descriptor of a process, as in proc_pid_fd(5). Raises `OSError`."""
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):  # closed since
            yield os.readlink(f"{folder}/{name}")


def control_groups() -> list[tuple[str, str]]:
    """Our control groups: the controllers (empty for version 2) and the path (cgroups(7))."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
        lines = [line.split(":", 2) for line in file.read().splitlines()]
    return [(controllers, path) for _, controllers, path in lines]


def all_processes() -> list[Process]:
    """Every process that this process can see."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [process for pid in pids if (process := read_process(pid)) is not None]


def descendants(root: int) -> list[Process]:
    """The living descendants of `root`, parents before children; zombies are left out."""
    children: dict[int, list[Process]] = {}
    for process in all_processes():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = [root]
    while waiting:
        for process in children.get(waiting.pop(), ()):
            waiting.append(process.pid)
            if process.state not in "ZX":
                found.append(process)
    return found
