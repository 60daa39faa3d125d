"""Evidence about coding agents from outside: their own files, processes, terminals.

The files are below the account's home; a thread reads them with the account's rights, so links
there lead only where the account itself may go. All reads are bounded, and a file without useful
content is no evidence.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import msgspec

from agent.crew.record import Followed, follow, opened
from agent.crew.states import Evidence, FileSays, Member, Process
from agent.init import proctree
from agent.platform.account import Account
from agent.untrusted import decode

MOST_READ = 64 << 10
MOST_CHILDREN = 256
_TICKS = os.sysconf("SC_CLK_TCK")
_DEVPTS_MAJOR = 136


class _SessionFile(msgspec.Struct, frozen=True, rename="camel"):
    """The fields of `~/.claude/sessions/PID.json` that are needed."""

    session_id: str
    status: str = ""
    waiting_for: str | None = None
    status_updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal, and when it was last written (nanoseconds of the wall clock)."""

    name: str
    written: int


class Looker:
    """Looks at members, and remembers the terminal of each. One per crew."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._written: dict[str, int] = {}
        self._followed: dict[str, Followed] = {}

    def look(self, members: Sequence[Member]) -> dict[str, Evidence]:
        """The evidence about each member, by name. Call it in a thread: a disk may hang."""
        below = _below(members)
        written, self._written = self._written, {}
        followed, self._followed = self._followed, {}
        return {each.name: self._look_at(each, below, written, followed) for each in members}

    def _look_at(
        self,
        member: Member,
        below: Mapping[int, tuple[float, ...]],
        written: Mapping[str, int],
        followed: Mapping[str, Followed],
    ) -> Evidence:
        if not lives(member.process):
            return Evidence(alive=False)
        file = self._file(member)
        terminal = terminal_of(member.process[0])
        output = None
        if terminal is not None:
            self._written[member.name] = terminal.written
            output = written.get(member.name, terminal.written) != terminal.written
        ending = None
        if member.record:
            before = followed.get(member.name)
            here = before if before and before.path == member.record else Followed(member.record)
            with _rights_of(self._account):
                here = self._followed[member.name] = follow(here, self._account.uid)
            ending = here.ending
        return Evidence(True, file, output, below.get(member.process[0], ()), ending)

    def _file(self, member: Member) -> FileSays | None:
        if member.tool != "claude":
            return None
        path = f"{self._account.home}/.claude/sessions/{member.process[0]}.json"
        with _rights_of(self._account):
            content = _read(path, self._account.uid)
        try:
            says = decode(content, _SessionFile)
        except ValueError:
            return None  # missing, or being written: the next look sees it
        # A file from an earlier conversation of this process says nothing about this one.
        if says.session_id != member.session:
            return None
        return FileSays(says.status, says.waiting_for or "", says.status_updated_at / 1000)


def lives(process: Process) -> bool:
    """Whether the process still runs, and its id was not reused."""
    found = proctree.read_process(process[0])
    return found is not None and found.started == process[1] and found.state not in "ZX"


def process_of(pid: int, uid: int) -> Process | None:
    """The running process of this id, if it belongs to the account."""
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    found = proctree.read_process(pid)
    if found is None or owner != uid or found.state in "ZX":
        return None
    return pid, found.started


def terminal_of(pid: int) -> Terminal | None:
    """The terminal of a process, if it has one."""
    # psutil reads its map of terminals only once, and so misses later ones.
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            device = int(file.read().rpartition(b")")[2].split()[4])
        number = (os.major(device) - _DEVPTS_MAJOR) * 256 + os.minor(device)
        if device == 0 or number < 0:
            return None
        return Terminal(f"pts/{number}", os.stat(f"/dev/pts/{number}").st_mtime_ns)
    except OSError:
        return None


def _below(members: Sequence[Member]) -> dict[int, tuple[float, ...]]:
    """The start times of the processes below each member whose state is in no file."""
    if all(member.tool == "claude" for member in members):
        return {}
    children: dict[int, list[proctree.Process]] = {}
    for process in proctree.all_processes():
        children.setdefault(process.parent, []).append(process)
    found = {}
    for member in members:
        waiting, below = [member.process[0]], list[float]()
        while waiting and len(below) < MOST_CHILDREN:
            for child in children.get(waiting.pop(), ()):
                waiting.append(child.pid)
                below.append(child.started / _TICKS)  # since boot, as our clock
        found[member.process[0]] = tuple(below)
    return found


@contextmanager
def _rights_of(account: Account) -> Iterator[None]:
    """Let this thread open files as the account; only root needs and can do that (setfsuid(2))."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None)
    libc.setfsgid(account.gid)
    libc.setfsuid(account.uid)
    try:
        yield
    finally:
        libc.setfsuid(0)
        libc.setfsgid(0)


def _read(path: str, uid: int) -> bytes:
    """The content of a small file that belongs to the account; empty if it is not such a file."""
    with suppress(OSError), opened(path, uid) as descriptor:
        return os.read(descriptor, MOST_READ)
    return b""
