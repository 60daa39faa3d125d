"""The user's flyctl: what it says as records, what it does as commands that are shown.

Facts on its commands: fly.io/docs/flyctl. No token is asked for or kept.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

OLDEST = (0, 3, 0)
"""The oldest flyctl whose answers have the shape that is read here."""

_HINTS = (
    (r"access token|not logged in|log ?in", "log in: fly auth login"),
    (r"org slug", "you have several organisations: swarm up NAME --org ORG"),
    (r"already been taken", "choose another name: swarm up OTHER-NAME"),
    (r"limit|quota|credit card", "see fly.io/dashboard: limits and payment of your account"),
    (r"timed? ?out|connection|network|lookup|dial", "is the network there? then run it once more"),
    (r"region .* not found", "fly platform regions lists them: swarm up NAME --region REGION"),
)

T = TypeVar("T")


class FlyError(Exception):
    """flyctl is missing, too old, or refused; the message says what to do."""


class Named(msgspec.Struct, frozen=True, rename="pascal"):
    """An app."""

    name: str


class Address(msgspec.Struct, frozen=True, rename="pascal"):
    """A public address; `type` is `v4`, `v6`, `shared_v4`, `private_v6`."""

    address: str
    type: str


class Volume(msgspec.Struct, frozen=True):
    """A volume of an app."""

    id: str
    name: str
    region: str
    size_gb: int


class Secret(msgspec.Struct, frozen=True):
    """A secret's name, which older flyctls write large; nobody can read its value back."""

    name: str = ""
    Name: str = ""


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot of a volume."""

    id: str
    created_at: str


class Guest(msgspec.Struct, frozen=True):
    """What a machine was bought as."""

    cpu_kind: str
    cpus: int
    memory_mb: int


class _Config(msgspec.Struct, frozen=True):
    guest: Guest


class Machine(msgspec.Struct, frozen=True):
    """An app's machine and its state (`started`, `stopped`, `suspended` …)."""

    id: str
    state: str
    region: str
    config: _Config


class _Version(msgspec.Struct, frozen=True, rename="pascal"):
    version: str


def find_program(local: bool) -> tuple[str, ...]:
    """The command that is flyctl. Raises `FlyError`."""
    if local:
        return (sys.executable, "-m", "deploy.local.fly")
    for name in ("fly", "flyctl"):
        if path := shutil.which(name):
            return (path,)
    raise FlyError("flyctl is not installed: see fly.io/docs/flyctl/install, then run it again")


@dataclass(frozen=True)
class Fly:
    """Runs flyctl. In a dry run only what asks is run; what changes something is only shown."""

    program: tuple[str, ...]
    tell: Callable[[str], None]
    dry_run: bool = False

    def ask(self, shape: type[T], *words: str) -> T:
        """What flyctl answers as JSON. Raises `FlyError`."""
        text = self._run([*words, "--json"], None)
        try:
            return msgspec.json.decode(text, type=shape, strict=False)
        except msgspec.DecodeError as error:
            shown = " ".join(words)
            raise FlyError(
                f"fly {shown} answered what cannot be read ({error}): is it too old?"
            ) from error

    def do(self, *words: str, given: str | None = None, why: str = "") -> str:
        """Change something; what flyctl says. Raises `FlyError`."""
        line = "fly " + " ".join(shlex.quote(word) for word in words)
        self.tell(f"{line}{'   # ' + why if why else ''}")
        return "" if self.dry_run else self._run(words, given)

    def inside(self, app: str, command: str) -> str:
        """Run a command as root in the started machine, over Fly's own channel: wakes nothing."""
        return self._run(["ssh", "console", "--app", app, "--quiet", "--command", command], None)

    def require_usable(self) -> str:
        """Installed, new enough, logged in; the account. Raises `FlyError`."""
        found = self.ask(_Version, "version").version
        match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", found)
        if match is None or tuple(map(int, match.groups())) < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise FlyError(f"flyctl {found} is too old, {wanted} is needed: fly version upgrade")
        return str(self.ask(dict[str, str], "auth", "whoami").get("email", ""))

    def has_app(self, app: str) -> bool:
        """The app is one of the account's."""
        return any(each.name == app for each in self.ask(list[Named], "apps", "list"))

    def machine(self, app: str) -> Machine | None:
        """The app's machine, if it has one."""
        found = self.ask(list[Machine], "machine", "list", "--app", app)
        return found[0] if found else None

    def volumes(self, app: str) -> list[Volume]:
        """The app's volumes."""
        return self.ask(list[Volume], "volumes", "list", "--app", app)

    def addresses(self, app: str) -> list[Address]:
        """The app's public addresses."""
        return self.ask(list[Address], "ips", "list", "--app", app)

    def secrets(self, app: str) -> list[str]:
        """The names of the app's secrets."""
        return [
            each.name or each.Name
            for each in self.ask(list[Secret], "secrets", "list", "--app", app)
        ]

    def _run(self, words: Sequence[str], given: str | None) -> str:
        try:
            done = subprocess.run(
                [*self.program, *words],
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise FlyError(f"cannot run {self.program[0]}: {error.strerror}") from error
        if done.returncode != 0:
            raise FlyError(_explained(words, done.stderr.strip() or done.stdout.strip()))
        return done.stdout


def _explained(words: Sequence[str], said: str) -> str:
    said = said.removeprefix("Error: ")[-600:]
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, said, re.IGNORECASE)), "")
    shown = " ".join(words[:2])
    return f"fly {shown}: {said}" + (f"\n  {hint}" if hint else "")
