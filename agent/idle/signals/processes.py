"""CPU and writing of the user's processes.

psutil reads single processes; `proctree` lists all of them, because psutil takes 30 ms of CPU for
250 processes, twice the budget (measured), and cannot recognise kernel threads.
"""

import asyncio
import os
from collections.abc import Callable

import psutil

from agent import words
from agent.idle.signals.sign import Sign
from agent.init import proctree
from agent.init.proctree import Process
from agent.platform.account import CHECKPOINTS_GROUP

SHOWN = 3
"""The most processes named in one look, the busiest ones."""

OWN_COMMAND = "swarm-agent"
"""Our own commands: asking for the machine's state must not keep it awake."""

_TICKS = os.sysconf("SC_CLK_TCK")
_SSHD = ("sshd", "sshd-session", "sshd-auth")

Key = tuple[int, int]
"""Identifies a process even if its id is reused: process id and start time."""


class ProcessUse:
    """How much of a resource each user process used since the last look.

    `counter` reads its total use (None: unknown), `threshold` is the use per second that counts,
    `says` puts a use per second into words. Programs in a folder named in `ignored` never count.
    """

    def __init__(
        self,
        name: str,
        counter: Callable[[Process], int | None],
        threshold: float,
        says: Callable[[float], str],
        ignored: tuple[str, ...],
    ) -> None:
        self.name = name
        self._counter = counter
        self._threshold = threshold
        self._says = says
        self._ignored = ignored
        self._before: dict[Key, int] = {}
        self._looked: float | None = None

    async def look(self, now: float) -> list[Sign]:
        """A sign for each process above the threshold, counting ones first. Raises `OSError`."""
        # In a thread: reading about a process that hangs in the kernel can hang too.
        return await asyncio.to_thread(self._look, now)

    def _look(self, now: float) -> list[Sign]:
        looked, self._looked = self._looked, now
        used = self._since_last_look()
        if looked is None or now <= looked:
            return []
        rates = sorted(((use / (now - looked), process) for process, use in used), key=_by_rate)
        signs = [self._sign(each, process) for each, process in rates if each >= self._threshold]
        return sorted(signs, key=lambda sign: not sign.active)[:SHOWN]

    def _since_last_look(self) -> list[tuple[Process, int]]:
        before, self._before = self._before, {}
        used = []
        for process in user_processes():
            count = self._counter(process)
            if count is not None:
                key = (process.pid, process.started)
                self._before[key] = count
                used.append((process, count - before.get(key, 0)))
        return used

    def _sign(self, per_second: float, process: Process) -> Sign:
        says = f"pid {process.pid} {process.command}: {self._says(per_second)}"
        folder = lies_in(process.pid, self._ignored)
        return Sign(folder is None, says if folder is None else f"{says}, ignored ({folder})")


def cpu(threshold: float, ignored: tuple[str, ...]) -> ProcessUse:
    """Processes that use more than `threshold` (a fraction) of a core."""
    return ProcessUse(
        "cpu",
        lambda process: process.cpu,
        threshold * _TICKS,
        lambda ticks: f"{ticks / _TICKS:.0%} of a core",
        ignored,
    )


def writes(threshold: float, ignored: tuple[str, ...]) -> ProcessUse:
    """Processes that send more than `threshold` bytes a second to any disk."""
    return ProcessUse(
        "writes", _written, threshold, lambda count: f"{words.size(count)}/s written", ignored
    )


def user_processes() -> list[Process]:
    """All processes except the kernel's, the platform's init, sshd, the agent and its checkpoints.

    As root these are all of the machine; as an ordinary user, only descendants of the agent.
    """
    own = os.getpid()
    seen = proctree.all_processes() if os.geteuid() == 0 else proctree.descendants(own)
    return [
        process
        for process in seen
        if process.pid not in (1, own)
        and not process.kernel
        and process.command not in _SSHD
        and not keeps_checkpoints(process.pid)
    ]


def keeps_checkpoints(pid: int) -> bool:
    """Whether the process has the group of checkpoints, which no other process can have."""
    try:
        return os.stat(f"/proc/{pid}").st_gid == CHECKPOINTS_GROUP
    except OSError:
        return False  # it has exited: its activity counts


def lies_in(pid: int, folders: tuple[str, ...]) -> str | None:
    """The folder of `folders` that contains the process's program, or our own command's name."""
    try:
        process = psutil.Process(pid)
        argv = process.cmdline()
        try:
            program = process.exe()
        except psutil.AccessDenied:
            # A container without CAP_SYS_PTRACE: only the command line is readable.
            program = argv[0] if argv else ""
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None  # it has exited: its activity counts
    first, second = (os.path.basename(word) for word in [*argv, "", ""][:2])
    if first == OWN_COMMAND or (first.startswith("python") and second == OWN_COMMAND):
        return OWN_COMMAND
    parts = program.split("/")[:-1]
    return next((folder for folder in folders if folder in parts), None)


def _written(process: Process) -> int | None:
    try:
        return psutil.Process(process.pid).io_counters().write_bytes
    except psutil.NoSuchProcess:
        return None  # it has exited
    except psutil.AccessDenied as error:
        if os.geteuid() == 0:
            # A container without CAP_SYS_PTRACE: this process's writes cannot be read.
            raise PermissionError(f"/proc/{process.pid}/io: {error}") from error
        return None


def _by_rate(entry: tuple[float, Process]) -> float:
    return -entry[0]
