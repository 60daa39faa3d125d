"""Puts restored files in their places. Runs as the login account, never as root.

It is a separate program that only uses the standard library. Its working folder is the stage, which
root has created and restic has filled. If the account interferes (links, changing files), that only
leads where the account itself may go.

    place.py in PATH...  < changes    restore each path; `changes` lists the differences
    place.py to FOLDER PATH...        put the paths below a folder that is empty or new

`changes` has entries `MODIFIER PATH`, each ended by NUL, as in restic's diff. Files that are in
neither checkpoint (left out, unreadable) are never touched. The result is one line of JSON.
"""

import errno
import json
import os
import re
import shutil
import stat
import sys

TOLD = 20
"""The most failures that are listed one by one."""


class Placing:
    """Moves entries and counts the results."""

    def __init__(self, changes: dict[str, str] | None) -> None:
        self.changes = changes
        self.placed = 0
        self.removed = 0
        self.failures = 0
        self.problems: list[str] = []

    def put(self, source: bytes, target: bytes) -> None:
        """Make the target equal to the source."""
        try:
            self._put(source, target)
        except OSError as error:
            self._failed(target, error)

    def _put(self, source: bytes, target: bytes) -> None:
        new = os.lstat(source)
        old = _lstat(target)
        if stat.S_ISDIR(new.st_mode) and old is not None and stat.S_ISDIR(old.st_mode):
            self._merge(source, new, target, old)
            return
        if old is not None:
            change = self._change(target)
            if change == "":
                return
            if change in ("+", "-"):
                # It exists, but the checkpoint of the present lacks it.
                raise OSError(0, "is in no checkpoint: left as it is")
            if stat.S_ISDIR(old.st_mode) != stat.S_ISDIR(new.st_mode):
                self._remove(target, old)
        self._move(source, new, target)
        self.placed += 1

    def _merge(
        self, source: bytes, new: os.stat_result, target: bytes, old: os.stat_result
    ) -> None:
        # The folder itself stays, and so do shells inside it.
        _open_up(source, new)
        _open_up(target, old)
        names = set(os.listdir(source))
        for name in sorted(names):
            self.put(os.path.join(source, name), os.path.join(target, name))
        for name in set(os.listdir(target)) - names:
            self._remove_if_gone(os.path.join(target, name))
        if old.st_uid == os.geteuid():  # the volume's root belongs to root
            os.chmod(target, stat.S_IMODE(new.st_mode))
            os.utime(target, ns=(new.st_atime_ns, new.st_mtime_ns))

    def _remove_if_gone(self, path: bytes) -> None:
        status = _lstat(path)
        if status is not None and self._is_gone(path, stat.S_ISDIR(status.st_mode)):
            try:
                self._remove(path, status)
            except OSError as error:
                self._failed(path, error)

    def _remove(self, path: bytes, status: os.stat_result) -> None:
        """Remove what the checkpoint of the present has; keep the rest, and the rest's folders."""
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(path)
            self.removed += 1
            return
        _open_up(path, status)
        for name in os.listdir(path):
            self._remove_if_gone(os.path.join(path, name))
        try:
            os.rmdir(path)
            self.removed += 1
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            os.chmod(path, stat.S_IMODE(status.st_mode))

    def _move(self, source: bytes, new: os.stat_result, target: bytes) -> None:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        folder = stat.S_ISDIR(new.st_mode)
        if folder:
            _open_up(source, new)  # moving a folder changes its entry for ..
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(source, target)
        if folder:
            os.chmod(target, stat.S_IMODE(new.st_mode))
            os.utime(target, ns=(new.st_atime_ns, new.st_mtime_ns))

    def _change(self, path: bytes) -> str:
        """How the checkpoint differs from the one of the present; "" if it does not."""
        changes, name = self.changes or {}, plain(path)
        return changes.get(name) or changes.get(f"{name}/") or ""

    def _is_gone(self, path: bytes, folder: bool) -> bool:
        name = plain(path) + ("/" if folder else "")
        return self.changes is not None and self.changes.get(name) == "-"

    def _failed(self, path: bytes, error: OSError) -> None:
        self.failures += 1
        if len(self.problems) < TOLD:
            self.problems.append(f"{os.fsdecode(path)!a}: {error.strerror}")


def plain(path: bytes) -> str:
    """A name that JSON can contain: each run of invalid UTF-8 becomes one U+FFFD."""
    return re.sub("\ufffd+", "\ufffd", path.decode("utf-8", "replace"))


def read_changes(content: bytes) -> dict[str, str]:
    """Path → its kind of difference; folders end with a slash."""
    lines = content.decode("utf-8", "replace").split("\0")
    return {re.sub("\ufffd+", "\ufffd", line[2:]): line[:1] for line in lines if line}


def _lstat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _open_up(path: bytes, status: os.stat_result) -> None:
    """Make our own read-only folder writable; its mode is restored at the end."""
    if status.st_mode & stat.S_IRWXU != stat.S_IRWXU and status.st_uid == os.geteuid():
        os.chmod(path, stat.S_IMODE(status.st_mode) | stat.S_IRWXU)


def _copy(source: bytes, target: bytes) -> None:
    status = os.lstat(source)
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(target, 0o700)
        for name in os.listdir(source):
            _copy(os.path.join(source, name), os.path.join(target, name))
        shutil.copystat(source, target)
    elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
        shutil.copy2(source, target, follow_symlinks=False)
    elif stat.S_ISFIFO(status.st_mode):
        os.mkfifo(target, stat.S_IMODE(status.st_mode))


def main(words: list[bytes]) -> None:
    """Carry out the command line. Raises `SystemExit` with a message."""
    if words[0] == b"in":
        placing = Placing(read_changes(sys.stdin.buffer.read()))
        for path in words[1:]:
            placing.put(b"." + path, path)
    else:
        folder, root = words[1:3]
        placing = Placing(None)
        try:
            os.makedirs(folder, mode=0o755, exist_ok=True)
            if os.listdir(folder):
                sys.exit(f"{os.fsdecode(folder)!a} is not empty")
        except OSError as error:
            sys.exit(f"{os.fsdecode(folder)!a}: {error.strerror}")
        stage = b"." + root
        for name in sorted(os.listdir(stage)):
            placing.put(os.path.join(stage, name), os.path.join(folder, name))
    print(  # noqa: T201  # the result
        json.dumps(
            {
                "placed": placing.placed,
                "removed": placing.removed,
                "failures": placing.failures,
                "problems": placing.problems,
            }
        )
    )


if __name__ == "__main__":
    main([os.fsencode(word) for word in sys.argv[1:]])
