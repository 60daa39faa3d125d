"""The one place that starts restic and reads what it says.

restic always runs with the login account's user id, so that root is never led through a link of the
account, and with a group of its own: the kernel then lets no other process of the account look
into it (ptrace(2)), as for ssh-agent(1). Its working folder is ours on the volume, entered by
descriptor: everything in it is named relatively, and no path leads the account there. Passwords and
credentials travel in files and in its environment, never in a command line.
"""

import asyncio
import math
import os
import re
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

import msgspec

from agent import safe
from agent.checkpoints.lines import pipe
from agent.clock import clock
from agent.init.children import Child, Children, Credentials, NotDone, clean_environment
from agent.platform.account import CHECKPOINTS_GROUP

T = TypeVar("T")

PROGRAM = "restic"
SAID = 4096
"""Bytes that are kept of what restic says on stderr."""

STALL = 120.0
"""Seconds without any progress after which a backup is given up."""

TAKE_LEAVE = 3.0
"""Seconds that restic may take to end cleanly when it is interrupted."""

CREDENTIALS = re.compile(r"(AWS|B2|AZURE|GOOGLE|RESTIC_REST)_[A-Z0-9_]+")
"""Variables of the agent that restic gets for the repository away from the machine."""


class Fault(Enum):
    """What kind of thing went wrong: what to do next depends on it."""

    ABSENT = "restic is not installed"
    NO_REPOSITORY = "there is no repository"
    LOCKED = "the repository is locked"
    KEY = "the repository's key is wrong"
    DAMAGED = "the repository is damaged"
    FULL = "no space left"
    UNREACHABLE = "the repository cannot be reached"
    NOT_FOUND = "there is no such checkpoint"
    GIVEN_UP = "given up"
    OTHER = "restic failed"


_TELLTALES = (
    (Fault.KEY, "wrong password or no key found|AccessDenied|SignatureDoesNotMatch|InvalidAccessKey"
     "|Permission denied \\(|status code 40[13]|unauthorized"),
    (Fault.LOCKED, "already locked"),
    (Fault.FULL, "no space left on device|disk quota exceeded"),
    (Fault.DAMAGED, "ciphertext verification failed|is damaged|invalid data returned|hash mismatch"
     "|not found in index|does not exist in index|repository contains errors|Load\\(.*no such file"
     "|unexpected EOF|wrong data returned|corrupt"),
    (Fault.NO_REPOSITORY, "unable to open config file: .*no such file|does not exist"),
    (Fault.NOT_FOUND, "no matching ID found|no snapshot found|invalid id"),
    (Fault.UNREACHABLE, "unable to start the sftp session|connection refused|no such host|timeout"
     "|network is unreachable|connection reset|Connection closed|no route to host"),
)  # fmt: skip

_STATUSES = {10: Fault.NO_REPOSITORY, 11: Fault.LOCKED, 12: Fault.KEY}
"""Exit statuses of restic since 0.17."""


class ResticError(Exception):
    """restic did not do what it was asked for; the message is for people."""

    def __init__(self, fault: Fault, said: str) -> None:
        super().__init__(f"{fault.value}: {said}" if said else fault.value)
        self.fault = fault


class Summary(msgspec.Struct, frozen=True):
    """What restic says at the end of a backup."""

    snapshot_id: str
    files_new: int = 0
    files_changed: int = 0
    total_files_processed: int = 0
    total_bytes_processed: int = 0
    data_added: int = 0
    total_duration: float = 0.0


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot in a repository. `original` is the one that it was copied from."""

    id: str
    time: str
    tags: list[str] = []
    original: str = ""
    hostname: str = ""


class Change(msgspec.Struct, frozen=True):
    """How a path differs between two snapshots; a folder's ends with a slash."""

    path: str
    modifier: str


class _Message(msgspec.Struct, frozen=True):
    message_type: str = ""
    item: str = ""


class _Status(msgspec.Struct, frozen=True):
    files_done: int = 0
    bytes_done: int = 0


@dataclass(slots=True)
class _Progress:
    """When a backup was last seen to move."""

    at: float
    status: _Status | None = None

    def saw(self, status: _Status) -> None:
        if status != self.status:
            self.at, self.status = clock(), status


class _Node(msgspec.Struct, frozen=True):
    struct_type: str = ""
    path: str = ""
    type: str = ""


def _ignore(_line: bytes) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where and as whom restic runs. `folder` is an open descriptor."""

    children: Children
    folder: int
    identity: Credentials | None
    """The account's ids with the group of checkpoints; None: whoever we are."""
    program: str
    version: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository away from the machine. `secrets` are variables for restic alone."""

    url: str
    secrets: Mapping[str, str] = field(repr=False)
    ssh: tuple[str, ...] = ()
    """The command line that restic shall use for SFTP."""


class Restic:
    """Runs one command of restic at a time, each with a time limit."""

    def __init__(self, around: Surroundings, *, patience: float, gentle: bool = True) -> None:
        self._around = around
        self._patience = patience
        self._gentle = gentle

    async def init(self, like: Remote | None = None) -> None:
        """Make the repository on the volume, cut like another one so that both share data."""
        words = ["init"]
        env = dict(_LOCAL)
        if like is not None:
            words += ["--copy-chunker-params", *_ssh_option(like)]
            env |= _secondary(like)
        await self._run(words, env)

    async def backup(
        self, path: str, parent: str | None, host: str, tags: Sequence[str]
    ) -> tuple[Summary, list[str], int]:
        """A new snapshot of what the account can read below `path`.

        Also the first paths that could not be read, and how many there were.
        """
        words = ["backup", "--json", "--one-file-system", "--exclude-caches", "--host", host]
        words += ["--exclude-file", "exclude", "--exclude-larger-than", LARGEST]
        words += ["--tag", ",".join(tags)] if tags else []
        words += ["--parent", parent] if parent else []
        progress = _Progress(clock())
        found: list[Summary] = []
        unread: list[str] = []
        count = 0

        def hear(line: bytes) -> None:
            nonlocal count
            message = _decode(line, _Message)
            if message is None:
                return
            if message.message_type == "status" and (status := _decode(line, _Status)):
                progress.saw(status)
            elif message.message_type == "summary" and (summary := _decode(line, Summary)):
                found.append(summary)
            elif message.message_type == "error" and message.item:
                count += 1
                if len(unread) < UNREAD_SHOWN:
                    unread.append(message.item)

        await self._run([*words, path], _LOCAL, hear, hear, fine=(0, 3), progress=progress)
        if not found:
            raise ResticError(Fault.OTHER, "it said nothing about the checkpoint that it made")
        return found[0], unread, count

    async def snapshots(self, remote: Remote | None = None) -> list[Snapshot]:
        """All snapshots, the oldest first."""
        text = await self._output(["snapshots", "--json"], remote)
        try:
            found = msgspec.json.decode(text.strip() or b"[]", type=list[Snapshot] | None) or []
        except msgspec.DecodeError as error:
            raise ResticError(
                Fault.OTHER, f"its list of snapshots is unreadable: {error}"
            ) from error
        return sorted(found, key=lambda each: each.time)

    async def restore(
        self, snapshot: str, paths: Sequence[bytes], target: str, remote: Remote | None = None
    ) -> str:
        """Write the paths of a snapshot below `target`, a folder in ours.

        What could not be restored is no error, but said.
        """
        words: list[str | bytes] = ["restore", snapshot, "--target", f"/proc/self/cwd/{target}"]
        words += ["--sparse"] if self._around.version >= (0, 15) else []
        for path in paths:
            words += [b"--include", escape(path)]
        return await self._run(words, _env_of(remote), remote=remote, fine=(0, 1))

    async def diff(self, first: str, second: str, hear: Callable[[Change], None]) -> None:
        """Tell every path that differs."""

        def line(content: bytes) -> None:
            kind = _decode(content, _Message)
            if kind is not None and kind.message_type == "change":
                change = _decode(content, Change)
                if change is not None:
                    hear(change)

        await self._run(["diff", "--json", "--metadata", first, second], _LOCAL, line)

    async def below(self, snapshot: str, folders: Sequence[str]) -> list[Change]:
        """Everything that a snapshot has below some folders, as if it were removed."""
        found: list[Change] = []

        def line(content: bytes) -> None:
            node = _decode(content, _Node)
            if node is not None and node.struct_type == "node" and node.path not in folders:
                found.append(Change(node.path + ("/" if node.type == "dir" else ""), "-"))

        await self._run(["ls", "--json", "--recursive", snapshot, *folders], _LOCAL, line)
        return found

    async def forget(self, ids: Sequence[str], remote: Remote | None = None) -> None:
        """Take snapshots out of the list; their data stays until `prune`."""
        for start in range(0, len(ids), 100):
            words = ["forget", *ids[start : start + 100]]
            await self._run(words, _env_of(remote), remote=remote)

    async def prune(self, unused: str, remote: Remote | None = None) -> None:
        """Delete data that no snapshot has; `unused` of it may stay."""
        await self._run(["prune", "--max-unused", unused], _env_of(remote), remote=remote)

    async def check(self, subset: str, remote: Remote | None = None) -> None:
        """Raise `ResticError` when the repository is damaged; reads a part of its data."""
        words = ["check", "--read-data-subset", subset]
        await self._run(words, _env_of(remote), remote=remote)

    async def fetch(self, snapshot: str, remote: Remote) -> None:
        """Copy one snapshot from the remote repository to the one on the volume."""
        words = [*_ssh_option(remote), "copy", snapshot]
        await self._run(words, _LOCAL | _secondary(remote))

    async def copy(self, remote: Remote) -> None:
        """Copy what the remote repository does not have yet, and make it first where it is not."""
        env = _env_of(remote) | _SECONDARY_LOCAL
        try:
            await self._run(["cat", "config"], env, remote=remote)
        except ResticError as error:
            if error.fault is not Fault.NO_REPOSITORY:
                raise
            await self._run(["init", "--copy-chunker-params"], env, remote=remote)
        await self._run(["copy"], env, remote=remote)

    async def _output(self, words: Sequence[str], remote: Remote | None) -> bytes:
        lines: list[bytes] = []
        await self._run(words, _env_of(remote), lines.append, remote=remote)
        return b"\n".join(lines)

    async def _run(
        self,
        words: Sequence[str | bytes],
        env: Mapping[str, str],
        hear: Callable[[bytes], None] = _ignore,
        complain: Callable[[bytes], None] = _ignore,
        *,
        remote: Remote | None = None,
        fine: Sequence[int] = (0,),
        progress: "_Progress | None" = None,
    ) -> str:
        """Run it to its end, and what it said on stderr. Raises `ResticError`."""
        cache = ["--no-cache"] if remote is None else ["--cache-dir", "cache", "--cleanup-cache"]
        argv: list[str | bytes] = [*self._prefix(), self._around.program, *cache]
        argv += [] if remote is None else _ssh_option(remote)
        said = _Tail()

        def both(line: bytes) -> None:
            complain(line)
            if not line.startswith(b"{"):  # names of files, which the account chooses
                said.add(line)

        with pipe(hear) as output, pipe(both) as errors:
            try:
                child = self._around.children.spawn(
                    [os.fsencode(word) for word in (*argv, *words)],
                    env=clean_environment() | _ALWAYS | dict(env),
                    stdout=output.writing,
                    stderr=errors.writing,
                    cwd=f"/proc/self/fd/{self._around.folder}",
                    run_as=self._around.identity,
                )
            except OSError as error:
                raise ResticError(Fault.ABSENT, str(error)) from error
            output.started()
            errors.started()
            try:
                await self._wait(child, progress or _Progress(math.inf))
            finally:
                await _end(child)
        status = child.exited.result()
        if status.code not in fine:
            raise ResticError(_fault(status.code, said.text), said.last or str(status))
        return said.text

    async def _wait(self, child: Child, progress: "_Progress") -> None:
        """Wait for its end. Raises `ResticError` when that takes too long, or nothing moves."""
        late = clock() + self._patience
        while child.running:
            now, stalled = clock(), progress.at + STALL
            if now >= late:
                raise ResticError(Fault.GIVEN_UP, f"not done in {self._patience:g} s")
            if now >= stalled:
                # A file that became a pipe while it was opened: nobody writes to it.
                raise ResticError(Fault.GIVEN_UP, f"no progress in {STALL:g} s")
            await asyncio.wait([child.exited], timeout=min(late, stalled) - now)

    def _prefix(self) -> list[str]:
        # A core file would have the key in it; its name may be chosen by the account.
        words = ["prlimit", "--core=0:0", "ionice", "-t", "-c", "3" if self._gentle else "2"]
        return [*words, "nice", "-n", "19" if self._gentle else "5"]


UNREAD_SHOWN = 10
LARGEST = "10G"
"""Larger files are left out: a sparse one could be of any size, and is read as a whole."""

_ALWAYS = {"RESTIC_PROGRESS_FPS": "0.2", "TMPDIR": "tmp", "HOME": "/nonexistent"}
_LOCAL = {"RESTIC_REPOSITORY": "repo", "RESTIC_PASSWORD_FILE": "key"}
_SECONDARY_LOCAL = {"RESTIC_FROM_REPOSITORY": "repo", "RESTIC_FROM_PASSWORD_FILE": "key"}


def find() -> str | None:
    """Where restic is, or None."""
    return shutil.which(PROGRAM, path=clean_environment()["PATH"])


async def version_of(children: Children, program: str) -> tuple[int, ...]:
    """The version of restic. Raises `ResticError`."""
    try:
        done = await children.run([program, "version"], env=clean_environment(), patience=30.0)
    except (OSError, NotDone) as error:
        raise ResticError(Fault.ABSENT, str(error)) from error
    match = re.search(rb"^restic (\d+)\.(\d+)\.(\d+)", done.output, re.MULTILINE)
    if match is None:
        raise ResticError(Fault.OTHER, "restic does not say its version")
    return tuple(map(int, match.groups()))


def identity_of(run_as: Credentials | None) -> Credentials | None:
    """The account's ids with the group of checkpoints as the first one; None where we are it."""
    if run_as is None:
        return None
    return Credentials(run_as.uid, CHECKPOINTS_GROUP, tuple({run_as.gid, *run_as.groups}))


def escape(path: bytes) -> bytes:
    """A pattern that only this path matches."""
    return re.sub(rb"([*?\[\]\\])", rb"\\\1", path)


def _env_of(remote: Remote | None) -> dict[str, str]:
    if remote is None:
        return dict(_LOCAL)
    return {"RESTIC_REPOSITORY": remote.url} | dict(remote.secrets)


def _secondary(remote: Remote) -> dict[str, str]:
    secrets = dict(remote.secrets)
    password = secrets.pop("RESTIC_PASSWORD", "")
    return {
        "RESTIC_FROM_REPOSITORY": remote.url,
        "RESTIC_FROM_PASSWORD": password,
    } | secrets


def _ssh_option(remote: Remote) -> list[str]:
    return ["-o", f"sftp.command={' '.join(remote.ssh)}"] if remote.ssh else []


def _fault(status: int, said: str) -> Fault:
    if status in _STATUSES:
        return _STATUSES[status]
    fatal = "\n".join(line for line in said.split("\n") if line.startswith("Fatal:"))
    for fault, pattern in _TELLTALES:
        if re.search(pattern, fatal or said, re.IGNORECASE):
            return fault
    return Fault.GIVEN_UP if status in (130, 137, 143) else Fault.OTHER


def _decode(line: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.DecodeError:
        return None  # a line for people, or of another kind


async def _end(child: Child) -> None:
    """Have it end cleanly; what does not is killed, with its children."""
    if not child.running:
        return
    child.send_group(signal.SIGCONT)
    child.send_group(signal.SIGINT)
    await asyncio.wait([child.exited], timeout=TAKE_LEAVE)
    child.send_group(signal.SIGKILL)


class _Tail:
    """The end of what was said, made safe."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: bytes) -> None:
        text = safe.output(line, 512)
        if text.strip():
            self._lines.append(text)
            del self._lines[:-20]

    @property
    def text(self) -> str:
        return "\n".join(self._lines)[-SAID:]

    @property
    def last(self) -> str:
        """The line that says why, for people."""
        fatal = [line for line in self._lines if line.startswith("Fatal:")]
        line = (fatal or self._lines or [""])[-1].removeprefix("Fatal: ")
        return line[:300]
