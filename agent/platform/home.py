"""Paths of the home that live on the volume: moved there once, linked at every boot, kept linked.

Fly.io resets the home at every cold start. All work here is done by processes with the rights of
the home's account: home and volume are full of its links, and none may lead root.

A person's change of a path applies at once. A replaced path (a program renamed a new file over the
link, or somebody removed the folder and created another) is moved to the volume; a removed path
stays removed. The volume's previous content is set aside in `.home/.before`.
"""

import fcntl
import math
import os
import signal
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, NoReturn

from agent.platform.account import Account
from agent.settings.units import HomePath, home_paths

if TYPE_CHECKING:
    from agent.init.children import Children

FOLDER = ".home"
BEFORE = ".before"
"""Below it: content of the volume that was replaced or removed in the home."""

MOST_BEFORE, LARGEST_BEFORE = 2, 256 << 20
"""The most that is kept there: so many of each path, of so many bytes; the rest is removed."""

MOST_AT_BOOT = 16 << 20
"""The largest path in bytes that is moved before SSH is open; larger ones are moved afterwards."""

PATIENCE_AT_BOOT = 5.0
"""Seconds that linking may take before SSH is open, whatever the account's files are."""

MARK = ".cache/swarm-agent/home-is-linked"
"""Lists the linked paths in a home: if something else is in place of such a link, somebody put it
there, and it is newer. A reset home has the image's files and no such list."""

OFF = ".cache/swarm-agent/off-volume"
"""The place for those parts of linked folders that stay off the volume."""

PRIVATE = (".ssh", ".gnupg")
"""Folders whose programs require that nobody else can read them."""

_UNFINISHED = ".moving"
_FIELD, _RECORD = "\x1f", "\x1e"


@dataclass(frozen=True, slots=True)
class Linked:
    """The result for one path. `kept_as`: where the copy that lost is kept."""

    path: HomePath
    moved: bool = False
    removed: bool = False
    kept_as: str = ""
    problem: str = ""

    def __str__(self) -> str:
        if self.problem:
            return f"~/{self.path} is not on the volume: {self.problem}"
        if self.removed:
            return f"~/{self.path} was removed; the volume's copy is kept as {self.kept_as}"
        if self.kept_as and self.moved:
            return f"~/{self.path} was replaced; the volume's copy is kept as {self.kept_as}"
        if self.kept_as:
            return f"~/{self.path} is now the volume's; the home's is kept as {self.kept_as}"
        return ""


async def link_all(
    account: Account, volume: str, paths: tuple[HomePath, ...], children: "Children"
) -> list[Linked]:
    """Replace `paths` with links to the volume; returns the result of each.

    A path that is only in the home is moved to the volume. If both have it, the home's copy wins in
    a linked home, and the volume's in a home that was reset; the other copy is kept. An interrupted
    boot is continued. A path that is not done in time has a problem. Raises `OSError`. Call it only
    before there are threads: it forks.
    """
    if os.geteuid() != 0:
        return list(_link_each(account.home, volume, paths))
    # A child, because changing our own ids would leave us "not dumpable" (prctl(2)), and sshd
    # reads its configuration through our descriptors.
    reading, writing = os.pipe()
    child = children.fork(partial(_link_and_exit, account, volume, paths, writing))
    os.close(writing)
    try:
        said = await _said(reading)
    finally:
        child.send(signal.SIGKILL)
    return parse(said, paths)


async def _said(reading: int) -> str:
    """The child's output until its end or `PATIENCE_AT_BOOT`; the descriptor is closed."""
    import asyncio

    said = bytearray()
    ended = asyncio.Event()

    def read() -> None:
        part = os.read(reading, 1 << 16)
        said.extend(part)
        if not part:
            ended.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(reading, read)
    try:
        async with asyncio.timeout(PATIENCE_AT_BOOT):
            await ended.wait()
    except TimeoutError:
        said.extend(f"not done within {PATIENCE_AT_BOOT:g} s, and linked once SSH is open".encode())
    finally:
        loop.remove_reader(reading)
        os.close(reading)
    return said.decode("utf-8", "replace")


def parse(said: str, paths: tuple[HomePath, ...]) -> list[Linked]:
    """The results that a process reported, and for the remaining paths the reason.

    Raises `OSError` if it failed after all paths.
    """
    *records, rest = said.split(_RECORD)
    fields = [record.split(_FIELD) for record in records]
    if len(fields) > len(paths) or any(len(each) != 4 for each in fields):
        raise OSError(f"the home was not linked: {said[-300:]}")
    found = [
        Linked(path, moved=moved == "1", removed=removed == "1", kept_as=kept_as, problem=problem)
        for path, (moved, removed, kept_as, problem) in zip(paths, fields, strict=False)
    ]
    problem = rest[-300:] or "no answer"
    if len(found) == len(paths) and rest:
        raise OSError(f"the list of linked paths was not written: {problem}")
    return [*found, *(Linked(path, problem=problem) for path in paths[len(found) :])]


def _say(found: Iterable[Linked], to: IO[str]) -> None:
    """Report the result of each path as soon as it is known."""
    for each in found:
        fields = (str(int(each.moved)), str(int(each.removed)), each.kept_as, each.problem)
        to.write(_FIELD.join(fields) + _RECORD)
        to.flush()


def _link_and_exit(
    account: Account, volume: str, paths: tuple[HomePath, ...], writing: int
) -> NoReturn:
    with open(writing, "w", encoding="utf-8", errors="replace") as pipe:
        try:
            os.umask(0o022)
            os.setgroups(os.getgrouplist(account.name, account.gid))
            os.setgid(account.gid)
            os.setuid(account.uid)
            _say(_link_each(account.home, volume, paths), pipe)
        except Exception as error:  # reported by the parent, whatever it is
            pipe.write(repr(error))
    os._exit(0)


def _link_each(home: str, volume: str, paths: tuple[HomePath, ...]) -> Iterator[Linked]:
    before = _marked(home)
    for path in paths:
        yield _try(home, volume, path, was_linked=path.path in before, most=MOST_AT_BOOT)
    os.makedirs(os.path.dirname(f"{home}/{MARK}"), exist_ok=True)
    with open(f"{home}/{MARK}", "w", encoding="utf-8", opener=_without_waiting) as mark:
        # A linked path that could not be moved this time is still newer than the volume's copy.
        linked = (path for path in paths if path.path in before or not is_replaced(home, path))
        mark.writelines(f"{path.path}\n" for path in linked)


def _marked(home: str) -> set[str]:
    try:
        with open(
            f"{home}/{MARK}", encoding="utf-8", errors="replace", opener=_without_waiting
        ) as mark:
            return set(mark.read(1 << 16).splitlines())
    except OSError:
        return set()


def _without_waiting(path: str, flags: int) -> int:
    """An opener for `open` that does not block on a pipe in the place of a file."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def is_replaced(home: str, path: HomePath) -> bool:
    """Whether something else, or nothing, is in place of a link. It reads no content."""
    try:
        return not stat.S_ISLNK(os.lstat(f"{home}/{path.path}").st_mode)
    except OSError:
        return True


def bring_back(
    home: str, volume: str, paths: tuple[HomePath, ...], unlinked: frozenset[str]
) -> Iterator[Linked]:
    """Move content that replaced a link to the volume, and set aside content that was removed.

    The boot has created no link for `unlinked` paths, so nobody has replaced or removed one.

    It runs in a process of the account, beside its other processes: a path that one of them has
    open is copied, and stays in the home for now.
    """
    before = _marked(home)
    for path in paths:
        was_linked = path.path not in unlinked or path.path in before
        yield _try(home, volume, path, was_linked=was_linked)


def _try(
    home: str, volume: str, path: HomePath, *, was_linked: bool, most: float = math.inf
) -> Linked:
    place = _Place(path, home, f"{volume}/{FOLDER}", most)
    try:
        return place.settle(was_linked=was_linked)
    except OSError as error:
        return Linked(path, problem=str(error))


class _Place:
    """One path: `here` in the home, and `there` on the volume. At most `most` bytes are moved."""

    def __init__(self, path: HomePath, home: str, kept: str, most: float) -> None:
        self.path, self.home, self.kept, self.most = path, home, kept, most
        self.here, self.there = f"{home}/{path.path}", f"{kept}/{path.path}"

    def settle(self, *, was_linked: bool) -> Linked:
        """Make `here` a link to `there`, with the content that wins."""
        for path in (self.here, self.there):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        mode = _mode(self.here)
        if mode is not None and stat.S_ISLNK(mode) and os.readlink(self.here) == self.there:
            self._make_folder()
            self._finish(self.here + _UNFINISHED)
            return Linked(self.path)
        if mode is None:
            return self._link_nothing(was_linked=was_linked)
        if stat.S_ISLNK(mode):
            # A link to another place has no content: it is kept beside.
            return self._take_the_volumes()
        if _mode(self.there) is None:
            return self._move()
        if was_linked and (self._is_copied() or self._is_newer()):
            return self._move()
        return self._take_the_volumes()

    def _link_nothing(self, *, was_linked: bool) -> Linked:
        removed = was_linked and _mode(self.there) is not None
        removed = removed and not _is_empty(self.there)
        kept_as = self._set_aside() if removed else ""
        self._make_folder()
        os.symlink(self.there, self.here)
        return Linked(self.path, removed=removed, kept_as=kept_as)

    def _take_the_volumes(self) -> Linked:
        kept_as = f"{self.here}.before-{_now()}"
        os.rename(self.here, kept_as)
        self._make_folder()
        os.symlink(self.there, self.here)
        return Linked(self.path, kept_as=kept_as)

    def _move(self) -> Linked:
        """Move the home's copy to the volume, completely or not at all; set aside the old copy."""
        from agent.platform import trees  # only a move needs it: a usual boot does not read it

        if not self._is_small():
            return Linked(self.path, problem="it is large, and moved once SSH is open")
        kept_as = ""
        if self._is_copied():
            trees.copy_newer(self.here, self.there)
        else:
            kept_as = self._copy_whole()
        if stat.S_ISDIR(os.lstat(self.here).st_mode) and trees.is_open(self.here):
            self._note_copy()
            return Linked(self.path, kept_as=kept_as, problem="copied; a program still has it open")
        old = self.here + _UNFINISHED
        if _mode(old) is not None:
            trees.remove(old)
        os.symlink(self.there, old)
        trees.exchange(old, self.here)
        self._finish(old)
        self._forget_copy()
        return Linked(self.path, moved=True, kept_as=kept_as)

    def _is_newer(self) -> bool:
        from agent.platform import trees

        return trees.changed(self.here) >= trees.changed(self.there)

    def _is_small(self) -> bool:
        from agent.platform import trees

        size = 0
        for count, status in enumerate(trees.statuses(self.here)):
            size += status.st_size
            if size > self.most or (self.most < math.inf and count >= trees.MOST_LOOKED_AT):
                return False
        return True

    def _copy_whole(self) -> str:
        from agent.platform import trees

        unfinished = self.there + _UNFINISHED
        if _mode(unfinished) is not None:
            trees.remove(unfinished)
        trees.copy(self.here, unfinished, {f"{self.here}/{off}" for off in self.path.off})
        os.sync()
        # Removed after the copy is safe, so that a kill meanwhile loses neither.
        kept_as = self._set_aside() if _mode(self.there) is not None else ""
        os.rename(unfinished, self.there)
        self._make_folder()
        return kept_as

    def _finish(self, old: str) -> None:
        """Apply writes to the old side since it was copied, and remove the old side."""
        mode = _mode(old)
        if mode is None:
            return
        from agent.platform import trees

        if not stat.S_ISLNK(mode):
            trees.copy_newer(old, self.there)
            for off in self.path.off:
                self._keep_off(old, off)
        trees.remove(old)

    @property
    def _note(self) -> str:
        return f"{self.kept}/{BEFORE}/{self.path.path.replace('/', '%')}.copied"

    def _note_copy(self) -> None:
        os.makedirs(os.path.dirname(self._note), mode=0o700, exist_ok=True)
        with open(self._note, "w", encoding="ascii", opener=_without_waiting) as file:
            file.write(_identity(self.here))

    def _is_copied(self) -> bool:
        """Whether the volume has an earlier copy of the home's content."""
        try:
            with open(self._note, encoding="ascii", opener=_without_waiting) as file:
                return file.read(100) == _identity(self.here)
        except (OSError, ValueError):
            return False

    def _forget_copy(self) -> None:
        if _mode(self._note) is not None:
            os.unlink(self._note)

    def _make_folder(self) -> None:
        # A program that creates its folder fails on a dangling link (EEXIST).
        if not self.path.is_folder:
            return
        os.makedirs(self.there, exist_ok=True)
        if self.path.path in PRIVATE:
            os.chmod(self.there, 0o700)
        for off in self.path.off:
            target, link = f"{self.home}/{OFF}/{self.path.path}/{off}", f"{self.there}/{off}"
            os.makedirs(target, exist_ok=True)
            if _mode(link) is None:
                os.makedirs(os.path.dirname(link), exist_ok=True)
                os.symlink(target, link)

    def _keep_off(self, old: str, off: str) -> None:
        """Move the parts that stay off the volume to their place in the home, by renaming."""
        source, target = f"{old}/{off}", f"{self.home}/{OFF}/{self.path.path}/{off}"
        if _mode(source) is not None and os.path.isdir(target) and not os.listdir(target):
            os.rmdir(target)
            os.rename(source, target)

    def _set_aside(self) -> str:
        """Set aside the volume's content; returns its new place. The oldest ones are removed."""
        from agent.platform import trees

        if trees.size(self.there) > LARGEST_BEFORE:
            trees.remove(self.there)
            return ""
        folder = f"{self.kept}/{BEFORE}"
        os.makedirs(folder, mode=0o700, exist_ok=True)
        name = self.path.path.replace("/", "%")
        older = sorted(each for each in os.listdir(folder) if each.startswith(f"{name}@"))
        for each in older[: max(0, len(older) + 1 - MOST_BEFORE)]:
            trees.remove(f"{folder}/{each}")
        kept_as = f"{folder}/{name}@{_now()}"
        os.rename(self.there, kept_as)
        return kept_as


def _now() -> str:
    return f"{time.strftime('%Y%m%dT%H%M%S')}-{os.urandom(2).hex()}"


def _is_empty(path: str) -> bool:
    mode = os.lstat(path).st_mode
    return not os.listdir(path) if stat.S_ISDIR(mode) else os.lstat(path).st_size == 0


def _identity(path: str) -> str:
    status = os.lstat(path)
    return f"{status.st_dev} {status.st_ino}"


def _mode(path: str) -> int | None:
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _main() -> None:
    os.umask(0o022)
    home, volume, unlinked, *words = sys.argv[1:]
    paths = home_paths(" ".join(words))
    os.makedirs(os.path.dirname(f"{home}/{MARK}"), exist_ok=True)
    with open(f"{home}/{MARK}", "a", encoding="utf-8", opener=_without_waiting) as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)  # at the end of a run another process may be at work
        _say(bring_back(home, volume, paths, frozenset(unlinked.split())), sys.stdout)


if __name__ == "__main__":
    _main()
