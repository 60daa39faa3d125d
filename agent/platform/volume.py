"""The agent's own folder on the volume, opened so that the volume's owner cannot lead root.

The volume belongs to the user. Its files are opened relative to a directory descriptor, never
through a link, and are used only if they are ours and nobody else can write them.
"""

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

FOLDER = ".swarm"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotTrusted(Exception):
    """A file or folder on the volume is not ours, or somebody else could have written it."""


class Folder:
    """An open folder that only we can write; all names are relative to its descriptor."""

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self.path = path

    @property
    def descriptor(self) -> int:
        """For opening files in it."""
        return self._descriptor

    def read(self, name: str, limit: int = 1 << 20) -> bytes | None:
        """The content of a file of ours, or None if there is none.

        Raises `NotTrusted` for a link, a special file, another owner, a mode that gives other
        accounts access, or more than `limit` bytes: part of a file is never taken for all of it.
        Raises `OSError` if it cannot be read.
        """
        try:
            descriptor = os.open(
                name,
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                dir_fd=self._descriptor,
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            if self._is_link(name):
                raise NotTrusted("it is a symbolic link") from error
            raise
        try:
            _require_ours(os.fstat(descriptor), stat.S_IFREG)
            content = b""
            while piece := os.read(descriptor, limit + 1 - len(content)):
                content += piece
                if len(content) > limit:
                    raise NotTrusted(f"it is larger than {limit >> 10} KiB")
            return content
        finally:
            os.close(descriptor)

    def write(self, name: str, content: bytes) -> None:
        """Replace a file as a whole, readable only by us; a kill leaves the old or the new one.

        Raises `OSError`.
        """
        temporary = f".{name}.new"
        self._remove(temporary)
        descriptor = os.open(
            temporary,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=self._descriptor,
        )
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        os.fsync(self._descriptor)

    def set_aside(self, name: str) -> str:
        """Rename something unusable out of the way; returns the new name."""
        kept_as = f"{name}.refused-{time.strftime('%Y%m%dT%H%M%S')}-{os.urandom(2).hex()}"
        os.rename(name, kept_as, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        return kept_as

    def _replace_subfolder(self, name: str) -> str:
        """Replace a folder that is not ours with a new one; returns the old one's new name.

        Raises `NotTrusted`, with nothing moved, if the file system keeps no owners or modes.
        """
        fresh = f"{name}.new-{os.urandom(4).hex()}"
        try:
            os.close(self._open_subfolder(fresh))
        except NotTrusted:
            os.rmdir(fresh, dir_fd=self._descriptor)
            raise
        kept_as = self.set_aside(name)
        os.rename(fresh, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        return kept_as

    def _open_subfolder(self, name: str) -> int:
        with suppress(FileExistsError):  # the usual case; its owner is checked below
            os.mkdir(name, 0o700, dir_fd=self._descriptor)
        try:
            descriptor = os.open(name, _DIRECTORY, dir_fd=self._descriptor)
        except NotADirectoryError as error:
            raise NotTrusted("it is a symbolic link or not a folder") from error
        try:
            _require_ours(os.fstat(descriptor), stat.S_IFDIR)
        except NotTrusted:
            os.close(descriptor)
            raise
        return descriptor

    def _is_link(self, name: str) -> bool:
        return stat.S_ISLNK(os.lstat(name, dir_fd=self._descriptor).st_mode)

    def _remove(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._descriptor)
        except FileNotFoundError:
            return


@contextmanager
def own_folder(volume: str, on_replaced: Callable[[str, str], None]) -> Iterator[Folder]:
    """The agent's folder on the volume, created if missing.

    An untrusted folder is set aside and replaced; `on_replaced` gets the reason and the path where
    it is kept. Raises `OSError` if the volume cannot be used, and `NotTrusted` if its file system
    keeps no owners or modes.
    """
    path = f"{volume}/{FOLDER}"
    root = Folder(os.open(volume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), volume)
    try:
        try:
            descriptor = root._open_subfolder(FOLDER)
        except NotTrusted as reason:
            kept_as = root._replace_subfolder(FOLDER)
            on_replaced(f"{path}: {reason}", f"{volume}/{kept_as}")
            descriptor = root._open_subfolder(FOLDER)
        try:
            yield Folder(descriptor, path)
        finally:
            os.close(descriptor)
    finally:
        os.close(root._descriptor)


def give_to(volume: str, uid: int, gid: int) -> None:
    """Let an account work in the volume's root without letting it replace our folder there.

    The volume's root belongs to root; the account's group may write, and with the sticky bit only
    owners can rename and remove. If the account owns the volume's root, root takes it back only on
    a file system of its own: otherwise it is a folder of somebody's computer. Nothing below is
    touched. Raises `OSError`.
    """
    descriptor = os.open(volume, _DIRECTORY)
    try:
        status = os.fstat(descriptor)
        ours = status.st_uid == os.geteuid()
        if not ours and not (status.st_uid == uid and _is_file_system(volume)):
            return
        mode = stat.S_IMODE(status.st_mode) | stat.S_IRWXG | stat.S_ISVTX
        if (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) != (
            os.geteuid(),
            gid,
            mode,
        ):
            os.fchown(descriptor, os.geteuid(), gid)
            os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def is_mounted(path: str) -> bool:
    """Whether something is mounted here, even if only a folder of the same file system."""
    return bool(_mounted_here(path))


def _is_file_system(path: str) -> bool:
    """Whether a whole file system is mounted here, not a folder of one."""
    return _mounted_here(path)[-1:] == ["/"]


def _mounted_here(path: str) -> list[str]:
    """The mounts here, as paths within their file systems (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        fields = [line.split() for line in file]
    return [root for _, _, _, root, point, *_ in fields if point == path]


def is_safe_by_name(volume: str) -> bool:
    """Whether only we can replace our folder. Raises `OSError`."""
    return replaceable_in(volume) is None


def replaceable_in(volume: str) -> str | None:
    """The folder in which somebody else can replace ours, or the path to it; None if there is none.

    For files that must be opened by name (SQLite): it is the volume's root or a folder above it
    that belongs to somebody else, or in which other accounts may rename things. Raises `OSError`.
    """
    path = os.path.realpath(volume)
    while _others_cannot_rename_in(os.stat(path)):
        if path == "/":
            return None
        path = os.path.dirname(path)
    return path


def _others_cannot_rename_in(status: os.stat_result) -> bool:
    writers = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if writers == stat.S_IWGRP and _is_alone_in(status.st_gid):
        writers = 0
    return status.st_uid in (0, os.geteuid()) and not (
        writers and not status.st_mode & stat.S_ISVTX
    )


def _is_alone_in(gid: int) -> bool:
    """Whether the group is the private group of our account, as Debian creates them.

    Files of such an account are often writable for the group (umask 002, pam_umask(8)).
    """
    uid = os.geteuid()
    if uid == 0:
        return False
    import grp
    import pwd

    try:
        own = pwd.getpwuid(uid)
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    return (
        own.pw_gid == gid
        and set(group.gr_mem) <= {own.pw_name}
        and all(each.pw_uid == uid for each in pwd.getpwall() if each.pw_gid == gid)
    )


def _require_ours(status: os.stat_result, kind: int) -> None:
    if stat.S_IFMT(status.st_mode) != kind:
        raise NotTrusted("it is not a regular file")
    if status.st_uid != os.geteuid():
        raise NotTrusted(f"it belongs to uid {status.st_uid}, not to uid {os.geteuid()}")
    if status.st_mode & 0o077:
        raise NotTrusted(f"other accounts may use it (mode {stat.S_IMODE(status.st_mode):04o})")
    if kind == stat.S_IFREG and status.st_nlink != 1:
        raise NotTrusted("it has a second name (hard link)")
