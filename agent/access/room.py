"""Room for the next login: a limit of processes for the login account, and enough free terminals.

Every process of another account inherits the limit (RLIMIT_NPROC, which does not apply to root).
The limit of a login is a little above the number of processes that run at that moment, so that a
fork bomb of an earlier session cannot prevent it. The kernel has no limit of terminals per account:
when few are left, the account's processes that hold the most of them are killed.
"""

import asyncio
import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from agent.bus import Bus
from agent.clock import clock
from agent.events import Notice
from agent.init import proctree
from agent.init.children import Child, Children, clean_environment
from agent.platform import terminals
from agent.platform.account import Account, credentials_of

LOGIN = 64
"""Processes that a login may have beyond all processes that run when it begins."""

FIRST_NAMESPACE = "pid:[4026531836]"
"""The namespace that sees every process of the kernel (PROC_PID_INIT_INO, linux/proc_ns.h)."""

PROBE = 1.0
"""Seconds between two tests whether the account can start a process within the limit."""

FEW, FREED = 16, 64
"""When fewer than `FEW` terminals are left, some are freed until `FREED` are left."""

PATIENCE = 60.0
"""Seconds that the search for their holders may take."""

CGROUPS = "/sys/fs/cgroup"
CAP_SYS_RESOURCE = 24

OURSELVES = 0  # the caller of prlimit(2)
MIB = 1 << 20
LEAST = 1024
"""The machine is assumed to hold one process per MiB of its memory, and at least so many."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Processes and threads: the `most` that the machine allows, and the number `now`."""

    most: int
    now: int

    @classmethod
    def read(cls) -> "Tasks":
        """The lowest limit of the kernel and of our cgroups (pids), and the count it applies to."""
        found = [cls(_number("/proc/sys/kernel/pid_max"), _running())]
        found.append(cls(_number("/proc/sys/kernel/threads-max"), found[0].now))
        for folder in _groups():
            with suppress(OSError, ValueError):  # no such file, or "max"
                limit = _number(f"{folder}/pids.max")
                found.append(cls(limit, _number(f"{folder}/pids.current")))
        return min(found, key=lambda each: each.most)


def usual_limit(share: float, tasks: Tasks) -> int:
    """The number of processes that the account may have."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, int(share * min(tasks.most, max(LEAST, memory // MIB))))


def limit_of_login(usual: int, tasks: Tasks) -> int:
    """The number of processes that it may have for a login that begins now."""
    return max(usual, min(tasks.now + LOGIN, tasks.most))


class Room:
    """Makes room for logins. `share`: the account's share of the machine's possible processes."""

    def __init__(self, share: float | None, account: Account, children: Children, bus: Bus) -> None:
        self._account = account
        self._children = children
        self._bus = bus
        self._share = share if os.geteuid() == 0 else None
        # In another namespace the kernel also counts processes of the same uid that we cannot see.
        self._all_seen = os.readlink("/proc/self/ns/pid") == FIRST_NAMESPACE
        self._probe_at = 0.0
        self._shared = False
        self._taking: asyncio.Task[None] | None = None
        _limit(OURSELVES, None if self._share is None else usual_limit(self._share, Tasks.read()))

    def for_a_login(self, start: Callable[[], Child]) -> Child:
        """Start the process of a login and make room for it. Raises `OSError`."""
        child = start()
        # Its banner does not wait for the rest: nothing runs as the account before a login.
        if self._share is not None:
            self._limit_login(child, self._share)
        if self._taking is None and os.geteuid() == 0 and (left := terminals.left()) < FEW:
            self._taking = asyncio.create_task(self._take_terminals_back(left), name="terminals")
        return child

    def _limit_login(self, child: Child, share: float) -> None:
        tasks = Tasks.read()
        usual = usual_limit(share, tasks)
        limit = limit_of_login(usual, tasks)
        shared = self._is_shared(limit, tasks)
        _limit(OURSELVES, None if shared else usual)
        with suppress(ProcessLookupError):
            _limit(child.pid, None if shared else limit)

    def _is_shared(self, limit: int, tasks: Tasks) -> bool:
        """A limit would prevent logins, as others run processes with the same uid."""
        if self._all_seen or clock() < self._probe_at or tasks.now + 1 >= tasks.most:
            return self._shared
        self._probe_at = clock() + PROBE
        before, self._shared = self._shared, False
        _limit(OURSELVES, limit)
        try:
            self._children.spawn(
                ["true"], env=clean_environment(), run_as=credentials_of(self._account.name)
            )
        except OSError as error:
            self._shared = error.errno == errno.EAGAIN
        if self._shared and not before:
            said = (
                f"no limit of processes for {self._account.name}: more than {limit} run with its "
                f"uid {self._account.uid}, most of them outside of this container"
            )
            self._bus.publish(Notice(part="processes", notice=said))
        return self._shared

    async def _take_terminals_back(self, left: int) -> None:
        from agent.bounded import bounded

        uid = self._account.uid
        try:
            # In a thread: with very many processes and open files it may take seconds.
            hoards = await bounded(lambda: terminals.hoards(uid), PATIENCE)
        except TimeoutError:
            hoards = []
        finally:
            self._taking = None
        for hoard in hoards:
            with suppress(FileNotFoundError, ProcessLookupError):
                if os.stat(f"/proc/{hoard.pid}").st_uid == uid:
                    os.kill(hoard.pid, signal.SIGKILL)
            said = f"{hoard.command} (pid {hoard.pid}) held {hoard.count} and was killed"
            self._bus.publish(Notice(part="terminals", notice=f"few were left: {said}"))
            left += hoard.count
            if left >= FREED:
                return


def _limit(pid: int, value: int | None) -> None:
    """Limit the processes that a process and its children may start. Raises `ProcessLookupError`.

    The hard limit stays as it is if we may not raise it again.
    """
    number = resource.RLIM_INFINITY if value is None else value
    hard = number if _may_raise() else resource.prlimit(pid, resource.RLIMIT_NPROC)[1]
    if hard != resource.RLIM_INFINITY:
        number = hard if number == resource.RLIM_INFINITY else min(number, hard)
    resource.prlimit(pid, resource.RLIMIT_NPROC, (number, hard))


@cache
def _may_raise() -> bool:
    return bool(proctree.mask(os.getpid(), "CapEff") >> CAP_SYS_RESOURCE & 1)


def _groups() -> Iterator[str]:
    """The folders of our cgroups and of their parents, as far as they are visible."""
    for controllers, path in proctree.control_groups():
        if controllers in ("", "pids"):
            mount = f"{CGROUPS}/{controllers}".rstrip("/")
            folder = path
            while folder != "/":
                yield f"{mount}{folder}"
                folder = os.path.dirname(folder)
            yield mount


def _running() -> int:
    """Processes and threads of the whole kernel (proc_loadavg(5))."""
    with open("/proc/loadavg", encoding="ascii") as file:
        return int(file.read().split()[3].partition("/")[2])


def _number(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())
