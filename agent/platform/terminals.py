"""Terminals of the machine: who owns them, and writing a line on one."""

import asyncio
import os
import stat

from agent import safe

_PTS = "/dev/pts"
_DEVPTS_MAJOR = range(136, 144)  # Documentation/admin-guide/devices.txt

ATTEMPTS = 20
AGAIN = 0.05
"""How often, and after how many seconds, a terminal that is busy is tried again."""


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


def write(terminal: str, text: str, attempts: int = ATTEMPTS) -> None:
    """Show lines on a terminal (`pts/3`), without waiting for one that is stopped or slow.

    While another process writes there the kernel refuses us (EAGAIN): it is tried again later.
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
        # Gone: the lines are a courtesy.
        return
    finally:
        os.close(descriptor)
