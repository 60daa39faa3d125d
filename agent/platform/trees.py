"""Files and folders that programs may be using: measured, copied, swapped and removed.

Everything here runs with the rights of the account that owns them. No link is followed. Only a
move needs this module: a boot with all paths linked does not import it.
"""

import ctypes
import os
import shutil
import stat
from collections.abc import Iterator

MOST_LOOKED_AT = 20_000
"""The most files of a folder whose time or size is read."""

_AT_FDCWD, _EXCHANGE = -100, 2  # renameat2(2)


def statuses(path: str) -> Iterator[os.stat_result]:
    """The status of a file, or of a folder and the first `MOST_LOOKED_AT` entries below it."""
    yield os.lstat(path)
    count = 0
    for folder, _, names in os.walk(path):
        for name in names:
            status = _status(f"{folder}/{name}")
            count += 1
            if count > MOST_LOOKED_AT:
                return
            if status is not None:
                yield status


def changed(path: str) -> float:
    """The time of its last change (ctime), which no program can set."""
    return max(status.st_ctime for status in statuses(path))


def size(path: str) -> int:
    """Bytes on the disk."""
    return sum(status.st_blocks * 512 for status in statuses(path))


def is_open(folder: str) -> bool:
    """Whether a process of the account works in the folder, or has a file in it open to write."""
    inside = os.path.realpath(folder) + "/"
    return any(f"{path}/".startswith(inside) for path in _open_paths())


def _open_paths() -> Iterator[str]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            yield os.readlink(f"/proc/{pid}/cwd")
            for number in os.listdir(f"/proc/{pid}/fd"):
                path = os.readlink(f"/proc/{pid}/fd/{number}")
                if path.startswith("/") and os.lstat(f"/proc/{pid}/fd/{number}").st_mode & 0o200:
                    yield path
        except OSError:
            continue  # it has exited, or belongs to another account


def exchange(one: str, other: str) -> None:
    """Swap two names, in one step if the file system can. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0:
        return
    # Not every file system can: then a name is missing for a moment.
    aside = f"{one}.{os.urandom(4).hex()}"
    os.rename(other, aside)
    os.rename(one, other)
    os.rename(aside, one)


def copy(here: str, there: str, left_out: set[str]) -> None:
    """Copy a file, or a folder without the paths in `left_out`. Raises `OSError`."""

    def ignored(folder: str, names: list[str]) -> set[str]:
        return _special(folder, names) | {n for n in names if f"{folder}/{n}" in left_out}

    if stat.S_ISDIR(os.lstat(here).st_mode):
        shutil.copytree(here, there, symlinks=True, ignore=ignored)
    else:
        shutil.copy2(here, there, follow_symlinks=False)


def copy_newer(old: str, new: str) -> None:
    """Copy files that were written in `old` since it was copied to `new`. Raises `OSError`."""
    if not stat.S_ISDIR(os.lstat(old).st_mode):
        if os.lstat(old).st_mtime_ns != os.lstat(new).st_mtime_ns:
            shutil.copy2(old, new, follow_symlinks=False)
        return
    for folder, _, names in os.walk(old):
        there = new + folder[len(old) :]
        for name in sorted(set(names) - _special(folder, names)):
            status, copied = os.lstat(f"{folder}/{name}"), _status(f"{there}/{name}")
            if copied is None or status.st_mtime_ns > copied.st_mtime_ns:
                os.makedirs(there, exist_ok=True)
                shutil.copy2(f"{folder}/{name}", f"{there}/{name}", follow_symlinks=False)


def _special(folder: str, names: list[str]) -> set[str]:
    """Sockets and pipes, which cannot be copied and are useless without their process."""
    kinds = {name: _mode(f"{folder}/{name}") for name in names}
    kept = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
    return {name for name, mode in kinds.items() if not any(is_kind(mode) for is_kind in kept)}


def remove(path: str) -> None:
    """Remove a file, or a folder with its content. Raises `OSError`."""
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _mode(path: str) -> int:
    status = _status(path)
    return 0 if status is None else status.st_mode
