"""The folder of the checkpoints on the volume: repository, key, and room for restoring.

It is in the agent's own folder, which only root can enter; restic, which runs with the account's
user id, gets there through a descriptor. Nothing in it is ever opened through a link.

    key        the password of the repository; root's, readable by the group of checkpoints
    repo/      restic's repository
    exclude    patterns that are left out
    tmp/       restic's temporary files
    cache/     restic's cache of the repository away from the machine
    stage/     restores in progress, one folder each
    ledger     the list of checkpoints, so that listing them needs no restic
"""

import os
import secrets
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from agent.checkpoints import tags
from agent.checkpoints.restic import Snapshot
from agent.init.children import Credentials
from agent.platform.account import CHECKPOINTS_GROUP
from agent.platform.volume import Folder, NotTrusted

NAME = "checkpoints"
LEDGER, KEY, EXCLUDE = "ledger", "key", "exclude"
IGNORE_FILE = ".swarmignore"
IGNORE_LIMIT = 1 << 16

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Checkpoint(msgspec.Struct, frozen=True):
    """A checkpoint of the volume. Unknown fields (it was copied here) are None."""

    id: str
    at: float
    cause: str = ""
    note: str = ""
    files: int | None = None
    bytes: int | None = None
    new: int | None = None
    changed: int | None = None
    added: int | None = None
    """Bytes that it added to the repository."""
    seconds: float | None = None
    unread: int = 0
    """Unreadable files that it lacks."""


class Ledger(msgspec.Struct, frozen=True):
    """The state that is kept beside the repository."""

    checkpoints: tuple[Checkpoint, ...] = ()
    """In the order in which they were made."""
    repository: str = ""
    """The repository's id: if it changes, somebody has replaced the repository."""
    unclean: bool = False
    """A run began and failed: it may have left data that no checkpoint uses."""
    damaged: str = ""
    checked: float = 0.0
    """When it was last checked (Unix time)."""
    uploaded: float = 0.0
    """The time of the newest checkpoint that was copied away from the machine."""
    upload_of: str = ""
    """Its id."""
    uploads_checked: float = 0.0


@dataclass(frozen=True, slots=True)
class Store:
    """The open folder. `owner` is the account of restic; None: our own."""

    path: str
    folder: Folder
    owner: Credentials | None

    @classmethod
    def open(cls, own: Folder, owner: Credentials | None) -> "Store":
        """Open the folder and create missing parts. Raises `OSError` and `NotTrusted`."""
        with suppress(FileExistsError):
            os.mkdir(NAME, 0o700, dir_fd=own.descriptor)
        descriptor = os.open(NAME, _DIRECTORY, dir_fd=own.descriptor)
        try:
            store = cls(f"{own.path}/{NAME}", Folder(descriptor, f"{own.path}/{NAME}"), owner)
            store._prepare()
        except BaseException:
            os.close(descriptor)
            raise
        return store

    def close(self) -> None:
        """Close the folder."""
        os.close(self.folder.descriptor)

    @property
    def has_repository(self) -> bool:
        """Whether there is a repository, complete or not."""
        try:
            os.stat("repo/config", dir_fd=self.folder.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def repository_id(self) -> str:
        """The identity of this repository: its configuration, which never changes."""
        import hashlib

        descriptor = self._open("repo/config", os.O_RDONLY)
        with open(descriptor, "rb") as file:
            return hashlib.sha256(file.read(1 << 16)).hexdigest()

    def whole_name(self, folder: str, beginning: str) -> str:
        """The name of the only file that begins with `beginning`. Raises `OSError`."""
        descriptor = self._open(folder, _DIRECTORY)
        try:
            found = [name for name in os.listdir(descriptor) if name.startswith(beginning)]
        finally:
            os.close(descriptor)
        if len(found) != 1:
            raise FileNotFoundError(2, "not there", f"{self.path}/{folder}/{beginning}")
        return found[0]

    def empty_repository(self) -> None:
        """Empty the repository's folder, which has no repository."""
        descriptor = self._open("repo", _DIRECTORY)
        try:
            for name in os.listdir(descriptor):
                remove(name, descriptor)
        finally:
            os.close(descriptor)

    def set_aside_repository(self) -> str:
        """Set repository and key aside, for root to find; returns the repository's new path."""
        kept_as = self.folder.set_aside("repo")
        os.rename(
            KEY,
            kept_as.replace("repo", KEY, 1),
            src_dir_fd=self.folder.descriptor,
            dst_dir_fd=self.folder.descriptor,
        )
        self._prepare()
        return f"{self.path}/{kept_as}"

    def read_ledger(self) -> Ledger:
        """The stored ledger, or an empty one. Raises `ValueError` if it is damaged."""
        content = self.folder.read(LEDGER, 1 << 24)
        return Ledger() if content is None else msgspec.json.decode(content, type=Ledger)

    def write_ledger(self, ledger: Ledger) -> None:
        """Store the ledger. Raises `OSError`."""
        self.folder.write(LEDGER, msgspec.json.encode(ledger))

    def write_exclude(self, patterns: str) -> None:
        """Store the patterns that restic leaves out. Raises `OSError`."""
        self.folder.write(EXCLUDE, patterns.encode("utf-8", "surrogateescape"))
        self._give(EXCLUDE, 0o640, account=False)

    def break_locks(self) -> None:
        """Remove the locks of a killed restic. Call it only while none runs: only we use it."""
        with suppress(FileNotFoundError):
            descriptor = self._open("repo/locks", _DIRECTORY)
            try:
                for name in os.listdir(descriptor):
                    os.unlink(name, dir_fd=descriptor)
            finally:
                os.close(descriptor)

    def clear(self) -> None:
        """Remove the remains of a killed run."""
        for name in ("stage", "tmp"):
            descriptor = self._open(name, _DIRECTORY)
            try:
                for entry in os.listdir(descriptor):
                    remove(entry, descriptor)
            finally:
                os.close(descriptor)

    def new_stage(self) -> str:
        """An empty folder to restore into, relative to ours. The account cannot reach it."""
        name = f"stage/{secrets.token_hex(8)}"
        os.mkdir(name, 0o700, dir_fd=self.folder.descriptor)
        if self.owner is not None:
            descriptor = self._open(name, _DIRECTORY)
            try:
                os.fchown(descriptor, self.owner.uid, CHECKPOINTS_GROUP)
            finally:
                os.close(descriptor)
        return name

    def open_stage(self, name: str) -> int:
        """A descriptor of the stage, for the process of the account that works in it."""
        return self._open(name, _DIRECTORY)

    def hand_over(self, name: str, gid: int) -> None:
        """Give everything in a stage to the group `gid`, not to the group of checkpoints.

        A program with that group and the set-group-id bit would give the account the repository.
        Nobody else can enter the stage, so nothing changes between a check and its use.
        """
        descriptor = self._open(name, _DIRECTORY)
        try:
            for _, folders, files, folder in os.fwalk(
                ".", dir_fd=descriptor, follow_symlinks=False, onerror=_raise
            ):
                for entry in (*folders, *files):
                    _take_group(entry, folder, gid)
            os.fchown(descriptor, -1, gid)
        finally:
            os.close(descriptor)

    def remove_stage(self, name: str) -> None:
        """Remove a stage with its content."""
        descriptor = self._open("stage", _DIRECTORY)
        try:
            remove(name.removeprefix("stage/"), descriptor)
        finally:
            os.close(descriptor)

    def size(self) -> int:
        """The size of all of it on the disk, in bytes. Raises `OSError`."""
        total = 0
        for _, _, files, folder in os.fwalk(".", dir_fd=self.folder.descriptor):
            for name in files:
                with suppress(FileNotFoundError):  # restic removes what it does not need
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    total += status.st_blocks * 512
        return total

    def _prepare(self) -> None:
        self._give(".", 0o750, account=False)
        if self._missing(KEY):
            self.folder.write(KEY, secrets.token_hex(32).encode())
        self._give(KEY, 0o640, account=False)
        for name, account in (("repo", True), ("tmp", True), ("cache", True), ("stage", False)):
            if self._missing(name):
                os.mkdir(name, 0o700, dir_fd=self.folder.descriptor)
            self._give(name, 0o700 if account else 0o750, account=account)

    def _missing(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self.folder.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return False

    def _give(self, name: str, mode: int, *, account: bool) -> None:
        """Give restic's processes access to a file or folder, and nobody else."""
        descriptor = self._open(name, os.O_RDONLY)
        try:
            status = os.fstat(descriptor)
            if self.owner is not None:
                trusted = {os.geteuid(), self.owner.uid} if account else {os.geteuid()}
                if status.st_uid not in trusted:
                    raise NotTrusted(f"{self.path}/{name} belongs to uid {status.st_uid}")
                uid = self.owner.uid if account else os.geteuid()
                os.fchown(descriptor, uid, CHECKPOINTS_GROUP)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def _open(self, name: str, flags: int) -> int:
        return os.open(
            name,
            flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            dir_fd=self.folder.descriptor,
        )


def read_ignore_file(volume: str, uid: int) -> list[str]:
    """The lines of the volume's `.swarmignore`, as patterns of restic.

    The file belongs to the account: it is read only if the account may read it, up to a limit. A
    pattern that begins with a slash starts at the volume's root. Raises `OSError`, `ValueError`.
    """
    try:
        descriptor = os.open(
            f"{volume}/{IGNORE_FILE}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except FileNotFoundError:
        return []
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (uid, os.geteuid()):
            raise ValueError("it must be a file of the login account")
        if status.st_uid != uid and not status.st_mode & stat.S_IROTH:
            raise ValueError("the login account may not read it")
        content = file.read(IGNORE_LIMIT + 1)
    if len(content) > IGNORE_LIMIT:
        raise ValueError(f"it is longer than {IGNORE_LIMIT} bytes")
    return patterns(content.decode("utf-8", "surrogateescape"), volume)


def patterns(text: str, volume: str) -> list[str]:
    """The patterns in a text; `$` is escaped, because restic would replace `$NAME`."""
    lines = [line.strip().replace("$", "$$") for line in text.splitlines()]
    return [
        f"{volume}{line}" if line.startswith("/") else line
        for line in lines
        if line and not line.startswith("#") and "\0" not in line
    ]


def known(snapshot: Snapshot) -> Checkpoint:
    """The checkpoint of a snapshot, as far as the repository knows it."""
    cause, note = tags.read(snapshot.tags)
    return Checkpoint(id=snapshot.id, at=tags.unix_time(snapshot.time), cause=cause, note=note)


def remove(name: str, folder: int) -> None:
    """Remove a file, or a folder with its content, never through a link."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        shutil.rmtree(name, dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)


def _take_group(name: str, folder: int, gid: int) -> None:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if status.st_gid != CHECKPOINTS_GROUP:
        return
    os.chown(name, -1, gid, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode) and status.st_mode & (stat.S_ISGID | stat.S_ISUID):
        os.chmod(name, stat.S_IMODE(status.st_mode) & ~(stat.S_ISGID | stat.S_ISUID), dir_fd=folder)


def _raise(error: OSError) -> None:
    raise error
