"""restic's commands and the parsing of its output. `running` starts it."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from agent.checkpoints.faults import Fault, ResticError
from agent.checkpoints.running import Progress, Remote, Runner, Surroundings
from agent.clock import clock

T = TypeVar("T")


class Summary(msgspec.Struct, frozen=True):
    """restic's summary at the end of a backup."""

    snapshot_id: str
    files_new: int = 0
    files_changed: int = 0
    total_files_processed: int = 0
    total_bytes_processed: int = 0
    data_added: int = 0
    total_duration: float = 0.0


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot in a repository. `original` is the snapshot of which it is a copy."""

    id: str
    time: str
    tags: list[str] = []
    original: str = ""
    hostname: str = ""


class Change(msgspec.Struct, frozen=True):
    """How a path differs between two snapshots; paths of folders end with a slash."""

    path: str
    modifier: str


class _Message(msgspec.Struct, frozen=True):
    message_type: str = ""
    item: str = ""


class _Status(msgspec.Struct, frozen=True):
    files_done: int = 0
    bytes_done: int = 0


class _Node(msgspec.Struct, frozen=True):
    struct_type: str = ""
    path: str = ""
    type: str = ""


class Restic:
    """The commands of restic, in one repository on the volume and one away from the machine."""

    def __init__(self, around: Surroundings, *, patience: float, gentle: bool = True) -> None:
        self._version = around.version
        self._run = Runner(around, patience, gentle)

    async def init(self) -> None:
        """Create the repository on the volume."""
        await self._run(["init"], _LOCAL)

    async def backup(
        self, path: str, parent: str | None, host: str, tags: Sequence[str]
    ) -> tuple[Summary, list[str], int]:
        """Make a snapshot of what the account can read below `path`.

        Also returns the first paths that could not be read, and their number.
        """
        words = ["backup", "--json", "--one-file-system", "--exclude-caches", "--host", host]
        words += ["--exclude-file", "exclude", "--exclude-larger-than", LARGEST]
        words += ["--tag", ",".join(tags)] if tags else []
        words += ["--parent", parent] if parent else []
        words += ["--no-scan"] if self._version >= (0, 15) else []  # a scan is only for estimates
        progress = Progress(clock())
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
            raise ResticError(Fault.OTHER, "it printed no summary of the checkpoint")
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

    async def restore(self, snapshot: str, paths: Sequence[bytes], target: str) -> str:
        """Write the paths of a snapshot below `target`, a folder in ours.

        Returns restic's stderr, which lists the paths that could not be restored.
        """
        words: list[str | bytes] = ["restore", snapshot, "--target", f"/proc/self/cwd/{target}"]
        words += ["--sparse"] if self._version >= (0, 15) else []
        for path in paths:
            words += [b"--include", escape(path)]
        return await self._run(words, _LOCAL, fine=(0, 1))

    async def diff(self, first: str, second: str, hear: Callable[[Change], None]) -> None:
        """Report every path that differs."""

        def line(content: bytes) -> None:
            kind = _decode(content, _Message)
            if kind is not None and kind.message_type == "change":
                change = _decode(content, Change)
                if change is not None:
                    hear(change)

        await self._run(["diff", "--json", "--metadata", first, second], _LOCAL, line)

    async def below(
        self, snapshot: str, folders: Sequence[str], hear: Callable[[Change], None]
    ) -> None:
        """Report everything that a snapshot has below some folders, as if it had been removed."""

        def line(content: bytes) -> None:
            node = _decode(content, _Node)
            if node is not None and node.struct_type == "node" and node.path not in folders:
                hear(Change(node.path + ("/" if node.type == "dir" else ""), "-"))

        await self._run(["ls", "--json", "--recursive", snapshot, *folders], _LOCAL, line)

    async def forget(self, ids: Sequence[str], remote: Remote | None = None) -> None:
        """Remove snapshots from the list; their data stays until `prune`."""
        for start in range(0, len(ids), 100):
            words = ["forget", *ids[start : start + 100]]
            await self._run(words, _env_of(remote), remote=remote)

    async def prune(self, unused: str, remote: Remote | None = None) -> None:
        """Delete data that no snapshot uses; `unused` is the share that may stay."""
        await self._run(["prune", "--max-unused", unused], _env_of(remote), remote=remote)

    async def check(self, subset: str, remote: Remote | None = None) -> None:
        """Check the repository and a part of its data. Raises `ResticError` if it is damaged."""
        words = ["check", "--read-data-subset", subset]
        await self._run(words, _env_of(remote), remote=remote)

    async def fetch(self, snapshot: str, remote: Remote) -> None:
        """Copy one snapshot from the remote repository to the one on the volume."""
        await self._run(["copy", snapshot], _LOCAL | _secondary(remote), remote=remote)

    async def copy(self, remote: Remote) -> None:
        """Copy missing snapshots to the remote repository; create it if it does not exist."""
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


UNREAD_SHOWN = 10
LARGEST = "10G"
"""Larger files are left out: a sparse file can have any size, and is read as a whole."""

_LOCAL = {"RESTIC_REPOSITORY": "repo", "RESTIC_PASSWORD_FILE": "key"}
_SECONDARY_LOCAL = {"RESTIC_FROM_REPOSITORY": "repo", "RESTIC_FROM_PASSWORD_FILE": "key"}


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


def _decode(line: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.DecodeError:
        return None  # a line for people, or a message of another kind
