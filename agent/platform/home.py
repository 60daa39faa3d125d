"""Paths of the home that live on the volume: moved there once, linked in at every boot.

Fly.io resets the home at every cold start. Everything here is done by processes with the rights of
the account whose home it is: home and volume are full of its links, and none may lead root.
"""

import os
import stat
import sys
import time
from dataclasses import dataclass
from typing import NoReturn

from agent.platform.account import Account
from agent.settings.units import HomePath, home_paths

FOLDER = ".home"

PRIVATE = (".ssh", ".gnupg")
"""Folders that their programs want to be nobody else's."""

_UNFINISHED = ".moving"
_FIELD, _RECORD = "\x1f", "\x1e"


@dataclass(frozen=True, slots=True)
class Linked:
    """What became of one path. `kept_as`: where the home's own lies, when the volume's counts."""

    path: HomePath
    moved: bool = False
    kept_as: str = ""
    problem: str = ""

    def __str__(self) -> str:
        if self.problem:
            return f"~/{self.path} is not on the volume: {self.problem}"
        if self.kept_as:
            return f"~/{self.path} is the volume's; the home's own is kept as {self.kept_as}"
        return ""


def link_all(account: Account, volume: str, paths: tuple[HomePath, ...]) -> list[Linked]:
    """Put links to the volume in the place of `paths`; what happened to each.

    What is in the home and not yet on the volume is moved there. Where both have something, the
    volume's counts and the home's is kept beside it. A boot that broke off is taken up again.
    Raises `OSError`. Only before there are threads: it forks.
    """
    if os.geteuid() != 0:
        return _link_each(account, volume, paths)
    # A child, not a change of our own ids: that would leave us "not dumpable" (prctl(2)), and sshd
    # reads its configuration by way of our descriptors.
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _link_and_exit(account, volume, paths, writing)
    os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    records = [record.split(_FIELD) for record in told.split(_RECORD)]
    if len(records) != len(paths):
        raise OSError(f"the home was not linked: {told or 'no answer'}")
    return [
        Linked(path, moved=moved == "1", kept_as=kept_as, problem=problem)
        for path, (moved, kept_as, problem) in zip(paths, records, strict=True)
    ]


def _link_and_exit(
    account: Account, volume: str, paths: tuple[HomePath, ...], writing: int
) -> NoReturn:
    try:
        os.umask(0o022)
        os.setgroups(os.getgrouplist(account.name, account.gid))
        os.setgid(account.gid)
        os.setuid(account.uid)
        records = [
            _FIELD.join((str(int(each.moved)), each.kept_as, each.problem))
            for each in _link_each(account, volume, paths)
        ]
        text = _RECORD.join(records)
    except Exception as error:  # told by the parent, whatever it is
        text = repr(error)
    with open(writing, "w", encoding="utf-8", errors="replace") as pipe:
        pipe.write(text)
    os._exit(0)


def _link_each(account: Account, volume: str, paths: tuple[HomePath, ...]) -> list[Linked]:
    return [_try_link(account.home, f"{volume}/{FOLDER}", path) for path in paths]


def bring_back(home: str, volume: str, paths: tuple[HomePath, ...]) -> list[Linked]:
    """Copy to the volume what has replaced a link since: programs that rename a new file over it.

    For the end of a life, in a process of the account's own; what was on the volume before is
    replaced, as the program meant.
    """
    return [_try_return(home, f"{volume}/{FOLDER}", path) for path in paths]


def _try_link(home: str, kept: str, path: HomePath) -> Linked:
    try:
        return _link(path, f"{home}/{path.path}", f"{kept}/{path.path}")
    except OSError as error:
        return Linked(path, problem=str(error))


def _try_return(home: str, kept: str, path: HomePath) -> Linked:
    here, there = f"{home}/{path.path}", f"{kept}/{path.path}"
    try:
        mode = _mode(here)
        if mode is None or stat.S_ISLNK(mode):
            return Linked(path)
        if stat.S_ISDIR(mode) and _mode(there) is not None:
            return Linked(path, problem=f"{here} is a folder of its own, and {there} another")
        _copy(here, there)
    except OSError as error:
        return Linked(path, problem=str(error))
    return Linked(path, moved=True)


def _link(path: HomePath, here: str, there: str) -> Linked:
    os.makedirs(os.path.dirname(there), exist_ok=True)
    os.makedirs(os.path.dirname(here), exist_ok=True)
    mode, moved, kept_as = _mode(here), False, ""
    if mode is not None and stat.S_ISLNK(mode) and os.readlink(here) == there:
        _make_folder(path, there)
        return Linked(path)
    if mode is not None:
        if _mode(there) is None and not stat.S_ISLNK(mode):
            _copy(here, there)
            moved = True
        # Only when the volume has it: a boot that breaks off here finds both, and loses neither.
        kept_as = f"{here}.before-{time.strftime('%Y%m%dT%H%M%S')}-{os.urandom(2).hex()}"
        os.rename(here, kept_as)
    _make_folder(path, there)
    os.symlink(there, here)
    if moved:
        _remove(kept_as)
        return Linked(path, moved=True)
    return Linked(path, kept_as=kept_as)


def _make_folder(path: HomePath, there: str) -> None:
    # A program that makes its folder stumbles over a link to nothing (EEXIST).
    if path.is_folder:
        os.makedirs(there, exist_ok=True)
        if path.path in PRIVATE:
            os.chmod(there, 0o700)


def _copy(here: str, there: str) -> None:
    """Copy to the volume, complete or not at all."""
    import shutil

    unfinished = there + _UNFINISHED
    if _mode(unfinished) is not None:
        _remove(unfinished)
    if stat.S_ISDIR(os.lstat(here).st_mode):
        shutil.copytree(here, unfinished, symlinks=True, ignore=_special)
    else:
        shutil.copy2(here, unfinished, follow_symlinks=False)
    os.sync()
    os.rename(unfinished, there)


def _special(folder: str, names: list[str]) -> set[str]:
    """Sockets and pipes cannot be copied, and mean nothing without their process."""
    kinds = {name: os.lstat(f"{folder}/{name}").st_mode for name in names}
    kept = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
    return {name for name, mode in kinds.items() if not any(is_kind(mode) for is_kind in kept)}


def _remove(path: str) -> None:
    import shutil

    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _mode(path: str) -> int | None:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    for linked in bring_back(sys.argv[1], sys.argv[2], home_paths(" ".join(sys.argv[3:]))):
        if linked.problem:
            sys.stderr.write(f"swarm-agent: {linked}\n")
