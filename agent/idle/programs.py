"""Programs of others that the agent runs: checks of activity, and hooks before the sleep.

Two folders hold them: what lies in the image's belongs to root and runs as root, what lies in the
home of the login account runs as that account. Whoever could change a program must be whom it runs
as, or root.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from agent import safe
from agent.init.children import Children, ExitStatus, NotDone, clean_environment
from agent.platform.account import Account, credentials_of, environment_of

IMAGE_FOLDER = "/etc/swarm"
HOME_FOLDER = ".config/swarm"
OUTPUT_LIMIT = 1024
"""Bytes that are kept of what a program says."""

SAID = 200


class ProgramError(Exception):
    """A program cannot be used, or did not end in time; the message says which and why."""

    def __init__(self, message: str) -> None:
        super().__init__(safe.line(message))


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run; as root where `account` is None."""

    path: str
    account: Account | None

    @property
    def name(self) -> str:
        """Its file name, as it can be shown."""
        return safe.line(os.path.basename(self.path))


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended, and the last line it said."""

    status: ExitStatus
    said: str


def find(folder: str, account: Account) -> tuple[list[Program], list[ProgramError]]:
    """The programs of `checks.d` or `sleep.d`, the image's first, each folder in order of name.

    A folder with something that somebody else could have written is left out, with the error;
    the other one is not touched by that.
    """
    found: list[Program] = []
    errors: list[ProgramError] = []
    for place, owner in (
        (f"{IMAGE_FOLDER}/{folder}", None),
        (f"{account.home}/{HOME_FOLDER}/{folder}", account),
    ):
        try:
            found += [Program(f"{place}/{name}", owner) for name in _names(place, owner)]
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


def _names(place: str, owner: Account | None) -> list[str]:
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ProgramError(f"{place} cannot be read: {error.strerror}") from error
    try:
        _require_owner(place, os.fstat(descriptor), owner)
        names = sorted(name for name in os.listdir(descriptor) if not name.startswith("."))
        return [name for name in names if _is_program(place, name, descriptor, owner)]
    except OSError as error:
        raise ProgramError(f"{place}: {error}") from error
    finally:
        os.close(descriptor)


def _is_program(place: str, name: str, descriptor: int, owner: Account | None) -> bool:
    status = os.stat(name, dir_fd=descriptor)
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        return False
    _require_owner(f"{place}/{name}", status, owner)
    return True


def _require_owner(path: str, status: os.stat_result, owner: Account | None) -> None:
    trusted = {0, os.geteuid()} if owner is None else {0, owner.uid}
    if status.st_uid not in trusted or status.st_mode & 0o022:
        raise ProgramError(
            f"{path} is not used: it belongs to uid {status.st_uid} with mode "
            f"{stat.S_IMODE(status.st_mode):04o}, so that others could have written it"
        )
