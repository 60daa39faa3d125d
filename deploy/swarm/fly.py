"""The user's flyctl: answers as records, changes as commands that are shown.

Its commands: fly.io/docs/flyctl and its source. flyctl keeps the login. Only commands
about many machines ask it for its token (fleet.py), and keep it in memory.
"""

import collections
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TypeVar

import msgspec

from agent import safe
from deploy.swarm.flyerrors import LAST_LINES, FlyError, RateLimitError, explained
from deploy.swarm.records import (
    Address,
    App,
    Executed,
    ListedMachine,
    Region,
    Secret,
    Snapshot,
    Version,
    Volume,
    chosen,
)
from deploy.swarm.show import Show

OLDEST = (0, 3, 0)
"""The oldest flyctl whose JSON can be read here."""

PROGRAM_VARIABLE = "SWARM_FLYCTL"
EXEC_LIMIT = 60
"""Seconds that a command in the machine may take."""

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds to wait before repeating a command that hit the API's rate limit."""

_ONCE = {"create", "fork", "allocate-v4", "allocate-v6"}
"""Never repeated: part of it may already be done. The next run first checks what exists."""

T = TypeVar("T")


def find_program(local: bool) -> tuple[str, ...]:
    """The command that is flyctl. Raises `FlyError`."""
    if given := os.environ.get(PROGRAM_VARIABLE):
        if found := shutil.which(given):
            return (found,)
        raise FlyError(f"{PROGRAM_VARIABLE}={given}: there is no such program")
    if local:
        return (sys.executable, "-m", "deploy.local.fly")
    for name in ("flyctl", "fly"):
        if path := shutil.which(name):
            return (path,)
    raise FlyError("flyctl is not installed: see fly.io/docs/flyctl/install, then run it again")


def local_environ() -> dict[str, str]:
    """The environment that points a flyctl at the stand-in on this computer. Raises `FlyError`."""
    from deploy.local import access, store

    folder = store.folder()
    try:
        return access.ensure(folder).environ(folder)
    except (access.AccessError, OSError) as error:
        raise FlyError(str(error)) from error


@dataclass
class Fly:
    """Runs flyctl. In a dry run, commands that change something are only shown."""

    program: tuple[str, ...]
    show: Show
    dry_run: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)

    def ask(self, shape: type[T], *words: str) -> T:
        """flyctl's JSON answer, as a record. Raises `FlyError`."""
        text = self._run([*words, "--json"], None)
        try:
            return msgspec.json.decode(text, type=shape, strict=False)
        except msgspec.DecodeError as error:
            shown = " ".join(words)
            problem = f"fly {shown} gave an answer that cannot be read ({error})"
            raise FlyError(f"{problem}: is it too old? fly version upgrade") from error

    def do(
        self, *words: str, given: bytes | None = None, why: str = "", stream: bool = False
    ) -> str:
        """Change something; returns what flyctl prints. Raises `FlyError`.

        `why` is shown while it runs. `stream` shows flyctl's own output on a terminal.
        """
        line = "fly " + " ".join(shlex.quote(word) for word in words)
        if self.dry_run:
            self.show.say(f"  {line}{'   # ' + why if why else ''}")
            return ""
        with self.show.step(why or line):
            if stream and self.show.live and not self.show.quiet:
                with self.show.paused():
                    return self._streamed(words)
            return self._run(words, given)

    def inside(
        self, app: str, machine: ListedMachine, command: str, limit: int = EXEC_LIMIT
    ) -> Executed:
        """Run a command as root in the started machine, over HTTPS. It does not wake the machine.

        `command` is split like a shell line, but no shell runs it. Raises `FlyError`.
        """
        words = ["machine", "exec", machine.id, command, "--app", app, "--timeout", str(limit)]
        return self.ask(Executed, *words)

    def told(self, app: str, machine: ListedMachine, command: str, limit: int = EXEC_LIMIT) -> str:
        """The output of a command in the machine. Raises `FlyError` if it failed."""
        done = self.inside(app, machine, command, limit)
        if done.exit_code:
            said = safe.lines((done.stderr or done.stdout).strip()[-600:])
            raise FlyError(
                f"in {app}, {command.split(maxsplit=1)[0]}: status {done.exit_code}: {said}"
            )
        return done.stdout

    def require_usable(self) -> str:
        """Check that flyctl is installed, new enough and logged in; returns the account.

        Raises `FlyError`.
        """
        found = self.ask(Version, "version").version
        match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", found)
        if match is None or tuple(map(int, match.groups())) < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise FlyError(f"flyctl {found} is too old, {wanted} is needed: fly version upgrade")
        return str(self.ask(dict[str, str], "auth", "whoami").get("email", ""))

    def has_app(self, app: str) -> bool:
        """Whether the account has this app."""
        return any(each.name == app for each in self.ask(list[App], "apps", "list"))

    def regions(self) -> list[str]:
        """The codes of the platform's regions."""
        return [each.code for each in self.ask(list[Region], "platform", "regions")]

    def machines(self, app: str) -> list[ListedMachine]:
        """The app's machines, except console and release machines."""
        return chosen(self.ask(list[ListedMachine], "machine", "list", "--app", app))

    def machine(self, app: str) -> ListedMachine | None:
        """The app's machine, if it has one; if it has two, the awake one."""
        found = self.machines(app)
        return found[0] if found else None

    def volumes(self, app: str) -> list[Volume]:
        """The app's volumes."""
        return self.ask(list[Volume], "volumes", "list", "--app", app)

    def snapshots(self, app: str, volume: str) -> list[Snapshot]:
        """The snapshots of a volume, the oldest first; those being made have no ID."""
        words = ["volumes", "snapshots", "list", volume, "--app", app]
        return self.ask(list[Snapshot], *words)

    def addresses(self, app: str) -> list[Address]:
        """The app's public addresses."""
        return self.ask(list[Address], "ips", "list", "--app", app)

    def secrets(self, app: str) -> list[str]:
        """The names of the app's secrets."""
        found = self.ask(list[Secret], "secrets", "list", "--app", app)
        return [each.name or each.Name for each in found]

    def start_of(self, *words: str, stdout: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        """Start a flyctl that keeps running, such as a proxy. Raises `FlyError`."""
        try:
            return subprocess.Popen(
                [*self.program, *words],
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise self._cannot_run(error) from error

    @contextmanager
    def lines_of(self, *words: str) -> Iterator[Iterator[str]]:
        """The lines of a flyctl as it writes them, until it or the block ends.

        Raises `FlyError` if it fails.
        """
        with self.start_of(*words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                yield (raw.decode(errors="replace").rstrip("\n") for raw in process.stdout)
            except KeyboardInterrupt:
                process.terminate()
                return
            said = process.communicate()[1].decode(errors="replace").strip()
        if process.returncode:
            raise explained(words, said)

    def _environ(self) -> dict[str, str]:
        return {**os.environ, **self.environ}

    def _run(self, words: Sequence[str], given: bytes | None) -> str:
        """Run it, and repeat it after a pause when it hits the API's rate limit."""
        for pause in PAUSES:
            try:
                return self._run_once(words, given)
            except RateLimitError:
                if not self._may_repeat(words):
                    raise
            wait = pause * random.uniform(0.8, 1.2)  # several may wait
            self.show.note(f"the API's rate limit is reached: again in {wait:.0f} s")
            time.sleep(wait)
        return self._run_once(words, given)

    def _may_repeat(self, words: Sequence[str]) -> bool:
        return not _ONCE.intersection(words[:3])

    def _run_once(self, words: Sequence[str], given: bytes | None) -> str:
        try:
            done = subprocess.run(
                [*self.program, *words],
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                env=self._environ(),
                check=False,
            )
        except OSError as error:
            raise self._cannot_run(error) from error
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        if done.returncode != 0:
            raise explained(words, err.strip() or out.strip())
        return out

    def _streamed(self, words: Sequence[str]) -> str:
        """Show the output as it comes, with the elapsed time."""
        last: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        began = time.monotonic()

        def pass_on(source: IO[bytes]) -> None:
            for raw in source:
                line = safe.output(raw)
                last.append(line)
                self.show.passed(time.monotonic() - began, line)

        try:
            process = subprocess.Popen(
                [*self.program, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._environ(),
            )
        except OSError as error:
            raise self._cannot_run(error) from error
        with process:
            assert process.stdout is not None
            reader = threading.Thread(target=pass_on, args=(process.stdout,), daemon=True)
            reader.start()
            process.wait()
            reader.join(5)
        if process.returncode != 0:
            # The lines before it were already shown.
            said = "\n".join(last)
            raise explained(words, said[max(0, said.rfind("Error: ")) :])
        return ""

    def _cannot_run(self, error: OSError) -> FlyError:
        return FlyError(f"cannot run {self.program[0]}: {error.strerror}")
