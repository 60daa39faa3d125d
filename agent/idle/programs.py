"""Runs programs of the image and the user: activity checks, and hooks before a sleep.

They are in two folders: programs in the image's folder belong to root and run as root, programs in
the home of the login account run as that account. Only root and the account that a program runs as
may be able to change it.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent import safe
from agent.init.children import Children, ExitStatus, NotDone, clean_environment
from agent.platform.account import Account, credentials_of, environment_of

IMAGE_FOLDER = "/etc/swarm"
HOME_FOLDER = ".config/swarm"
OUTPUT_LIMIT = 1024
"""Bytes that are kept of a program's output."""

SAID = 200

MOST = 64
"""The most programs of one folder."""

LIST_PATIENCE, LIST_LIMIT = 5.0, 32 << 10
"""Seconds that listing a folder may take, and the most bytes of its output."""

_LISTED = (
    "(",
    "-type",
    "d",
    "-o",
    "-type",
    "f",
    "-perm",
    "/111",
    ")",
    "-printf",
    r"%d%y %U %m %f\0",
)
"""Output of find(1): depth and type, owner, mode and name; each record ends with a zero byte."""

_FOLDER, _PROGRAM = b"0d", b"1f"


class ProgramError(Exception):
    """A program cannot be used, or timed out; the message says which and why."""

    def __init__(self, message: str) -> None:
        super().__init__(safe.line(message))


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run; as root if `account` is None."""

    path: str
    account: Account | None

    @property
    def name(self) -> str:
        """Its file name, as it can be shown."""
        return safe.line(os.path.basename(self.path))


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended, and the last line of its output."""

    status: ExitStatus
    said: str


async def find(
    folder: str, account: Account, children: Children
) -> tuple[list[Program], list[ProgramError]]:
    """The programs of `checks.d` or `sleep.d`, the image's first, each folder in order of name.

    If somebody else could have written something in a folder, it is left out, with the error; the
    other folder is still used. A process of the account lists the folder in the home: a link there
    must not show what only root may see, and many files must not block the agent.
    """
    found: list[Program] = []
    errors: list[ProgramError] = []
    for place, owner in (
        (f"{IMAGE_FOLDER}/{folder}", None),
        (f"{account.home}/{HOME_FOLDER}/{folder}", account),
    ):
        try:
            if os.path.lexists(place):
                found += _usable(await _entries(place, owner, children), place, owner)
        except ProgramError as error:
            errors.append(error)
    return found, errors


async def run(
    program: Program, children: Children, patience: float, environ: Mapping[str, str]
) -> Finished:
    """Run it to its end, at most `patience` seconds; its whole process group is killed then.

    Raises `ProgramError` when it cannot be started or is not done in time.
    """
    account = program.account
    base = clean_environment() if account is None else environment_of(account.name)
    try:
        done = await children.run(
            [program.path],
            env=base | dict(environ),
            patience=patience,
            keep=OUTPUT_LIMIT,
            cwd="/",
            run_as=None if account is None else credentials_of(account.name),
        )
    except NotDone as error:
        raise ProgramError(str(error)) from None
    except OSError as error:
        raise ProgramError(f"{program.path} cannot be run: {error.strerror}") from error
    return Finished(done.status, safe.last_line(done.output, SAID))


@dataclass(frozen=True, slots=True)
class _Entry:
    """A folder (`name` is empty) or a program in it; links are followed."""

    name: str
    uid: int
    mode: int


async def _entries(place: str, owner: Account | None, children: Children) -> list[_Entry]:
    """The folder, then its programs in order of name. Raises `ProgramError`."""
    try:
        done = await children.run(
            ["find", "-L", f"{place}/", "-maxdepth", "1", *_LISTED],
            env=clean_environment(),
            patience=LIST_PATIENCE,
            keep=LIST_LIMIT,
            cwd="/",
            run_as=None if owner is None else credentials_of(owner.name),
        )
    except (OSError, NotDone) as error:
        raise ProgramError(f"{place} cannot be listed: {error}") from error
    if done.status.code != 0:
        raise ProgramError(f"{place} cannot be read: {safe.last_line(done.output, SAID)}")
    entries = [entry for each in done.output.split(b"\0")[:-1] if (entry := _parse(each))]
    if len(entries) > MOST + 1 or len(done.output) >= LIST_LIMIT:
        raise ProgramError(f"{place} has too many programs: at most {MOST} are allowed")
    return sorted(entries, key=lambda entry: entry.name)


def _parse(record: bytes) -> _Entry | None:
    kind, uid, mode, name = record.split(b" ", 3)
    if kind == _FOLDER:
        return _Entry("", int(uid), int(mode, 8))
    if kind == _PROGRAM and not name.startswith(b"."):
        return _Entry(os.fsdecode(name), int(uid), int(mode, 8))
    return None


def _usable(entries: list[_Entry], place: str, owner: Account | None) -> Iterator[Program]:
    for entry in entries:
        path = f"{place}/{entry.name}".rstrip("/")
        _require_owner(path, entry.uid, entry.mode, owner)
        if entry.name:
            yield Program(path, owner)


def _require_owner(path: str, uid: int, mode: int, owner: Account | None) -> None:
    trusted = {0, os.geteuid()} if owner is None else {0, owner.uid}
    if uid not in trusted or mode & 0o022:
        raise ProgramError(
            f"{path} is not used: it belongs to uid {uid} with mode {mode:04o}, "
            "so somebody else could have written it"
        )
