"""The one place that starts restic.

restic always runs with the login account's user id, so that root never follows a link of the
account, and with a group of its own: the kernel then lets no other process of the account inspect
it (ptrace(2)), as for ssh-agent(1). Its working folder is ours on the volume, entered through a
descriptor: all names in it are relative, and no path leads the account there. Passwords and
credentials are passed in files and in its environment, never on a command line.
"""

import asyncio
import math
import os
import re
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from agent import safe
from agent.checkpoints.faults import Fault, ResticError, fault_of
from agent.checkpoints.lines import pipe
from agent.clock import clock
from agent.init.children import Child, Children, Credentials, NotDone, clean_environment
from agent.platform.account import CHECKPOINTS_GROUP

PROGRAM = "restic"
SAID = 4096
"""Bytes that are kept of restic's stderr."""

STALL = 120.0
"""Seconds without any progress after which a backup is abandoned."""

TAKE_LEAVE = 3.0
"""Seconds that restic may take to exit cleanly after an interrupt."""

CREDENTIALS = re.compile(r"(AWS|B2|AZURE|GOOGLE|RESTIC_REST)_[A-Z0-9_]+")
"""Variables of the agent that restic gets for the repository away from the machine."""

_ALWAYS = {"RESTIC_PROGRESS_FPS": "0.2", "TMPDIR": "tmp", "HOME": "/nonexistent"}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The folder and the account for restic. `folder` is an open descriptor."""

    children: Children
    folder: int
    identity: Credentials | None
    """The account's ids with the group of checkpoints; None: our own."""
    program: str
    version: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository away from the machine. `secrets` are variables only for restic."""

    url: str
    secrets: Mapping[str, str] = field(repr=False)
    ssh: tuple[str, ...] = ()
    """The command line that restic uses for SFTP."""

    @property
    def options(self) -> list[str]:
        """restic's command-line options for this repository."""
        return ["-o", f"sftp.command={' '.join(self.ssh)}"] if self.ssh else []


@dataclass(slots=True)
class Progress:
    """When a run last made progress; `of` is a measure of how far it is."""

    at: float
    of: object = None

    def saw(self, of: object) -> None:
        """Record how far it is now."""
        if of != self.of:
            self.at, self.of = clock(), of


def _ignore(_line: bytes) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs one command of restic at a time, each with a time limit in seconds (`patience`)."""

    around: Surroundings
    patience: float
    gentle: bool

    async def __call__(
        self,
        words: Sequence[str | bytes],
        env: Mapping[str, str],
        hear: Callable[[bytes], None] = _ignore,
        complain: Callable[[bytes], None] = _ignore,
        *,
        remote: Remote | None = None,
        fine: Sequence[int] = (0,),
        progress: Progress | None = None,
    ) -> str:
        """Run a command to its end; returns its stderr. Raises `ResticError`."""
        cache = ["--no-cache"] if remote is None else ["--cache-dir", "cache", "--cleanup-cache"]
        argv: list[str | bytes] = [*self._prefix(), self.around.program, *cache]
        argv += [] if remote is None else remote.options
        said = _Tail()

        def both(line: bytes) -> None:
            complain(line)
            said.add(line)

        with pipe(hear) as output, pipe(both) as errors:
            try:
                child = self.around.children.spawn(
                    [os.fsencode(word) for word in (*argv, *words)],
                    env=clean_environment() | _ALWAYS | dict(env),
                    stdout=output.writing,
                    stderr=errors.writing,
                    cwd=f"/proc/self/fd/{self.around.folder}",
                    run_as=self.around.identity,
                )
            except OSError as error:
                raise ResticError(Fault.ABSENT, str(error)) from error
            output.started()
            errors.started()
            try:
                await self._wait(child, progress or Progress(math.inf))
            finally:
                await _end(child)
        status = child.exited.result()
        if status.code not in fine:
            fault = fault_of(status.code, said.text)
            raise ResticError(fault, said.last or str(status), away=remote is not None)
        return said.text

    async def _wait(self, child: Child, progress: Progress) -> None:
        """Wait for its end. Raises `ResticError` if it takes too long or makes no progress."""
        late = clock() + self.patience
        while child.running:
            now, stalled = clock(), progress.at + STALL
            if now >= late:
                raise ResticError(Fault.GIVEN_UP, f"not done in {self.patience:g} s")
            if now >= stalled:
                # For example a file became a pipe while restic opened it, and nobody writes to it.
                raise ResticError(Fault.GIVEN_UP, f"no progress in {STALL:g} s")
            await asyncio.wait([child.exited], timeout=min(late, stalled) - now)

    def _prefix(self) -> list[str]:
        # A core file would contain the key; the account may choose its name.
        words = ["prlimit", "--core=0:0", "ionice", "-t", "-c", "3" if self.gentle else "2"]
        return [*words, "nice", "-n", "19" if self.gentle else "5"]


def find() -> str | None:
    """The path of restic, or None."""
    return shutil.which(PROGRAM, path=clean_environment()["PATH"])


async def version_of(children: Children, program: str) -> tuple[int, ...]:
    """The version of restic. Raises `ResticError`."""
    try:
        done = await children.run([program, "version"], env=clean_environment(), patience=30.0)
    except (OSError, NotDone) as error:
        raise ResticError(Fault.ABSENT, str(error)) from error
    match = re.search(rb"^restic (\d+)\.(\d+)\.(\d+)", done.output, re.MULTILINE)
    if match is None:
        raise ResticError(Fault.OTHER, "restic does not print its version")
    return tuple(map(int, match.groups()))


def identity_of(run_as: Credentials | None) -> Credentials | None:
    """The account's ids with the group of checkpoints first; None if we run as the account."""
    if run_as is None:
        return None
    return Credentials(run_as.uid, CHECKPOINTS_GROUP, tuple({run_as.gid, *run_as.groups}))


async def _end(child: Child) -> None:
    """Interrupt it; if it does not exit cleanly in time, kill it and its children."""
    if not child.running:
        return
    child.send_group(signal.SIGCONT)
    child.send_group(signal.SIGINT)
    await asyncio.wait([child.exited], timeout=TAKE_LEAVE)
    child.send_group(signal.SIGKILL)


class _Exit(msgspec.Struct, frozen=True):
    message_type: str = ""
    message: str = ""


def why(line: bytes) -> bytes:
    """The reason from a JSON line in which restic says why it exits; empty for any other line."""
    try:
        said = msgspec.json.decode(line, type=_Exit)
    except msgspec.DecodeError:
        return b""
    if said.message_type != "exit_error":
        return b""
    return said.message.partition("\n")[0].encode("utf-8", "surrogatepass")


class _Tail:
    """The last lines that restic wrote to stderr, made safe."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: bytes) -> None:
        """Add a line, unless it contains names of files, which the account chooses.

        With --json, restic 0.18 and later also reports in JSON why it exits.
        """
        if line.startswith(b"{"):
            line = why(line)
        text = safe.output(line, 512)
        if text.strip():
            self._lines.append(text)
            del self._lines[:-20]

    @property
    def text(self) -> str:
        return "\n".join(self._lines)[-SAID:]

    @property
    def last(self) -> str:
        """The line with the reason, for people."""
        fatal = [line for line in self._lines if line.startswith("Fatal:")]
        line = (fatal or self._lines or [""])[-1].removeprefix("Fatal: ")
        return line[:300]
