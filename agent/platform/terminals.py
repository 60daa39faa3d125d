"""Terminals of the machine: their owners, how many are left, and writing a line on one."""

import asyncio
import os
import stat
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from agent import safe
from agent.init import proctree

_PTS = "/dev/pts"
_DEVPTS_MAJOR = range(136, 144)  # Documentation/admin-guide/devices.txt

FAIR = 4
"""Terminals that any process may hold, however few are left."""

ATTEMPTS = 20
AGAIN = 0.05
"""How often, and after how many seconds, a busy terminal is retried."""


def of_account(uid: int) -> set[str]:
    """The open terminals (`pts/3`) of an account, in sessions, editors and tmux alike."""
    found = set()
    for name in os.listdir(_PTS):
        try:
            if name.isdigit() and os.stat(f"{_PTS}/{name}").st_uid == uid:
                found.add(f"pts/{name}")
        except FileNotFoundError:
            continue  # closed since
    return found


@dataclass(frozen=True, slots=True)
class Hoard:
    """A process and how many terminals it holds."""

    pid: int
    command: str
    count: int


def left() -> int:
    """How many more can be opened: the kernel's limit or that of this /dev/pts, the lower one."""
    most, used, kept = (_kernel(name) for name in ("max", "nr", "reserve"))
    free = most - used - kept
    own = _own_limit()
    return free if own is None else min(free, own - len(os.listdir(_PTS)) + 1)


def hoards(uid: int) -> list[Hoard]:
    """Processes of an account that hold more than `FAIR` terminals, the largest first."""
    found = []
    for process in proctree.all_processes():
        with suppress(OSError):  # it has exited
            if os.stat(f"/proc/{process.pid}").st_uid == uid:
                count = _held(process.pid)
                if count > FAIR:
                    found.append(Hoard(process.pid, process.command, count))
    return sorted(found, key=lambda hoard: -hoard.count)


def _held(pid: int) -> int:
    opened = Counter(proctree.open_files(pid))
    # Each descriptor of the multiplexer is one terminal, even if its other end is closed.
    own = sum(count for path, count in opened.items() if path.endswith("/ptmx"))
    return own + sum(path.startswith(_PTS) and path.endswith("(deleted)") for path in opened)


def _kernel(name: str) -> int:
    with open(f"/proc/sys/kernel/pty/{name}", encoding="ascii") as file:
        return int(file.read())


def _own_limit() -> int | None:
    """The option `max` of the file system at /dev/pts (mount(8), devpts)."""
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        mounts = [line.split() for line in file]
    options = [words[3] for words in mounts if words[1] == _PTS]
    for option in options[-1].split(",") if options else ():
        name, _, value = option.partition("=")
        if name == "max":
            return int(value)
    return None


def write(terminal: str, text: str, attempts: int = ATTEMPTS) -> None:
    """Write lines on a terminal (`pts/3`), without waiting for a stopped or slow one.

    While another process writes there, the kernel refuses us (EAGAIN): we retry later.
    """
    try:
        # A terminal stopped with Ctrl-S must not stop us.
        flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(f"/dev/{terminal}", flags)
    except OSError:
        return
    try:
        status = os.fstat(descriptor)
        if stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in _DEVPTS_MAJOR:
            shown = safe.lines(text).replace("\n", "\r\n")
            os.write(descriptor, f"\r\n{shown}\r\n".encode())
    except BlockingIOError:
        if attempts > 1:
            loop = asyncio.get_running_loop()
            loop.call_later(AGAIN, write, terminal, text, attempts - 1)
    except OSError:
        # The terminal is gone: the lines are only a courtesy.
        return
    finally:
        os.close(descriptor)
