"""CPU priority of strangers before they log in: everybody else comes first.

An attacker makes us compute key exchanges. Only root can raise the priority again after the login,
so only root lowers it.
"""

import os
from contextlib import suppress

STRANGER = 10
"""The nice value of a stranger's sshd until it has logged in."""


def lower(pid: int) -> None:
    """Lower the CPU priority of a session leader and of its session."""
    if os.geteuid() == 0:
        _set(pid, os.getpriority(os.PRIO_PROCESS, 0) + STRANGER)
        _set_session(pid, STRANGER)


def restore(pid: int) -> None:
    """Give a session leader and its descendants our own priority again."""
    if os.geteuid() == 0:
        _set_session(pid, 0)
        _restore_tree(pid, os.getpriority(os.PRIO_PROCESS, 0))


def _restore_tree(pid: int, value: int) -> None:
    # Parents first: processes that they start from now on have the right value.
    _set(pid, value)
    with suppress(OSError):  # it has ended, or the kernel has no such list
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = file.read().split()
        for child in children:
            _restore_tree(int(child), value)


def _set(pid: int, value: int) -> None:
    with suppress(OSError):  # it has ended
        os.setpriority(os.PRIO_PROCESS, pid, min(19, value))


def _set_session(pid: int, value: int) -> None:
    # Where the kernel groups processes by session (sched(7), autogroup), nice acts only within one.
    with suppress(OSError), open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as file:
        file.write(str(value))
