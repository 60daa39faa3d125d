"""`swarm up`: from nothing to a machine that answers, in steps that each look before they do.

Every step asks the platform what is there and does only what is missing, so a run that was broken
off anywhere is finished by the next one.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.access import keys
from agent.access.hostkeys import NAME as HOST_KEY
from deploy.swarm import place, ssh
from deploy.swarm.fly import Fly, FlyError
from deploy.swarm.place import Place, State

VOLUME = "workspace"
KEYS = "SSH_AUTHORIZED_KEYS"
PATIENCE = 180.0
"""Seconds that a machine may take until it answers."""

_CONTEXT = (
    "agent",
    "container",
    "deploy",
    "fly.toml",
    "pyproject.toml",
    "README.md",
    "requirements-build.lock",
    "requirements.lock",
)


class UpError(Exception):
    """A step cannot be done; the message says what to do."""


@dataclass(frozen=True)
class Wish:
    """What the user asked for."""

    region: str | None = None
    size: str | None = None
    memory_gb: int | None = None
    volume_gb: int | None = None
    ipv6_only: bool = False
    env_file: Path | None = None
    key: Path | None = None
    snapshot: str = ""
    org: str = ""
    rebuild: bool = False
    local: bool = False


class Up:
    """Brings one machine up. `tell` hears each step; `confirm` is asked before money is spent."""

    def __init__(
        self, where: Place, fly: Fly, tell: Callable[[str], None], confirm: Callable[[str], bool]
    ) -> None:
        self._place = where
        self._fly = fly
        self._tell = tell
        self._confirm = confirm
        self._name = where.name

    def run(self, wish: Wish) -> None:
        """Do what is missing. Raises `UpError`, `FlyError`."""
        account = self._fly.require_usable()
        self._tell(f"fly.io as {account}")
        state = self._wanted(wish)
        secrets = self._wanted_secrets(wish)
        exists = self._app(wish)
        if not self._fly.dry_run:
            self._place.keep(state)
            place.write(self._place.config, place.fly_config(self._name, state))
        self._volume(exists, state, wish)
        self._address(exists, wish)
        changed = self._secrets(exists, state, wish, secrets)
        self._deploy(exists, state, wish, changed)
        if not self._fly.dry_run:
            self._connect(state)

    def _wanted(self, wish: Wish) -> State:
        state = self._place.state()
        given = {
            "region": wish.region,
            "size": wish.size,
            "memory_gb": wish.memory_gb,
            "volume_gb": wish.volume_gb,
        }
        for name, value in given.items():
            if value is not None:
                setattr(state, name, value)
        state.local = wish.local
        if wish.key is not None:
            state.key = str(wish.key.absolute()).removesuffix(".pub")
        return state

    def _public_key(self, wish: Wish) -> Path:
        if wish.key is not None:
            return wish.key
        found = ssh.private_key()
        if found is None:
            folder = ssh.user_config().parent
            if not self._confirm(f"no ssh key in {folder}: make {folder}/id_ed25519?"):
                raise UpError("a key is needed: ssh-keygen -t ed25519, or swarm up --key FILE.pub")
            found = ssh.make_key()
        return found.with_name(found.name + ".pub")

    def _app(self, wish: Wish) -> bool:
        if self._fly.has_app(self._name):
            self._require_ours()
            return True
        org = ["--org", wish.org] if wish.org else []
        self._fly.do("apps", "create", self._name, *org, "--yes")
        return not self._fly.dry_run

    def _require_ours(self) -> None:
        """Whatever else runs in the account must not be deployed over."""
        if self._place.exists or self._fly.machine(self._name) is None:
            return
        if not any(each.name == VOLUME for each in self._fly.volumes(self._name)):
            raise UpError(f"{self._name} is another app of yours: choose another name")

    def _volume(self, exists: bool, state: State, wish: Wish) -> None:
        volumes = self._fly.volumes(self._name) if exists else []
        ours = [each for each in volumes if each.name == VOLUME]
        elsewhere = [each for each in ours if each.region != state.region]
        if elsewhere:
            volume = elsewhere[0]
            raise UpError(
                f"the volume {volume.id} is in {volume.region}, not in {state.region}: "
                f"swarm up {self._name} --region {volume.region} keeps it "
                "(to move it: swarm backup, swarm down, swarm up, swarm restore)"
            )
        if not ours:
            words = ["--region", state.region, "--size", str(state.volume_gb), "--yes"]
            if wish.snapshot:
                words += ["--snapshot-id", wish.snapshot]
            self._fly.do("volumes", "create", VOLUME, "--app", self._name, *words)

    def _address(self, exists: bool, wish: Wish) -> None:
        found = self._fly.addresses(self._name) if exists else []
        if any(each.type in ("v4", "v6") for each in found):
            return
        if wish.ipv6_only:
            self._fly.do("ips", "allocate-v6", "--app", self._name)
            return
        question = "a dedicated IPv4 address costs $2 a month (--ipv6-only is free): allocate one?"
        if not self._confirm(question):
            raise UpError("plain SSH needs a dedicated address: say yes, or swarm up --ipv6-only")
        self._fly.do("ips", "allocate-v4", "--app", self._name, "--yes")

    def _wanted_secrets(self, wish: Wish) -> dict[str, str]:
        # Read before anything is made: what is wrong with a file costs nothing then.
        wanted = {secret_name(): read_key(self._public_key(wish))}
        if wish.env_file is not None:
            wanted |= read_env(wish.env_file)
        return wanted

    def _secrets(self, exists: bool, state: State, wish: Wish, wanted: dict[str, str]) -> bool:
        there = set(self._fly.secrets(self._name)) if exists else set()
        changed = {
            name: value
            for name, value in wanted.items()
            if name not in there or state.secrets.get(name) != digest(value)
        }
        if wish.key is None and secret_name() in there:
            # Another laptop, or `swarm keys add`, gave a newer one.
            changed.pop(secret_name(), None)
        if changed:
            why = f"sets {', '.join(sorted(changed))}"
            import_secrets(self._fly, self._name, changed, stage=True, why=why)
            remember_secrets(state, changed)
            # A new deploy is due, also where this run ends before it.
            state.deployed = ""
            if not self._fly.dry_run:
                self._place.keep(state)
        return bool(changed)

    def _deploy(self, exists: bool, state: State, wish: Wish, changed: bool) -> None:
        machine = self._fly.machine(self._name) if exists else None
        wanted = fingerprint(place.fly_config(self._name, state))
        if machine is not None and state.deployed == wanted and not (changed or wish.rebuild):
            self._tell("nothing to deploy")
            return
        self._fly.do(
            "deploy",
            str(place.ROOT),
            "--app",
            self._name,
            "--config",
            str(self._place.config),
            "--dockerfile",
            str(place.ROOT / "container" / "Dockerfile"),
            "--remote-only",
            "--ha=false",
            "--yes",
            *(["--no-cache"] if wish.rebuild else []),
            why="builds the image and starts the machine",
        )
        state.deployed, state.deployed_at = wanted, time.time()
        if not self._fly.dry_run:
            self._place.keep(state)

    def _connect(self, state: State) -> None:
        wake(self._fly, self._name)
        state.host_key = self._host_key()
        self._place.keep(state)
        dedicated = [each for each in self._fly.addresses(self._name) if each.type in ("v4", "v6")]
        dedicated.sort(key=lambda each: each.type)
        ssh.configure(self._place, dedicated[0].address, state.host_key, state.key)
        end = time.monotonic() + PATIENCE
        while (result := ssh.answers(self._place)).returncode != 0:
            if time.monotonic() > end or "Permission denied" in result.stderr:
                raise UpError(
                    f"ssh does not get in: {result.stderr.strip()}\n  swarm doctor {self._name}"
                )
            time.sleep(1)

    def _host_key(self) -> str:
        """The machine's host key, over Fly's own channel: nobody between can give another."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                said = self._fly.inside(
                    self._name, f"/usr/bin/ssh-keygen -y -f /run/swarm/{HOST_KEY}"
                )
                key = " ".join(said.split()[:2])
                if key.startswith("ssh-"):
                    return key
                problem = said.strip()
            except FlyError as error:
                problem = str(error)
            if time.monotonic() > end:
                raise UpError(f"the machine does not tell its host key: {problem}")
            time.sleep(1)


def wake(fly: Fly, app: str) -> None:
    """Start the app's machine where it sleeps. Raises `FlyError`."""
    machine = fly.machine(app)
    if machine is None:
        raise FlyError(f"{app} has no machine: swarm up {app}")
    if machine.state != "started":
        fly.do("machine", "start", machine.id, "--app", app)


def import_secrets(fly: Fly, app: str, values: dict[str, str], *, stage: bool, why: str) -> None:
    """Give secrets by standard input: never on a command line."""
    text = "".join(
        f'{name}="""{value}"""\n' if "\n" in value else f"{name}={value}\n"
        for name, value in values.items()
    )
    words = ["--stage"] if stage else []
    fly.do("secrets", "import", "--app", app, *words, given=text, why=why)


def secret_name(person: str = "") -> str:
    """The secret that has a person's keys: the laptop's user where nobody is named."""
    who = person or os.environ.get("USER") or "me"
    return f"{KEYS}_{re.sub(r'[^A-Z0-9]', '_', who.upper())}"


def person_of(secret: str) -> str:
    """Whose keys a secret has."""
    return secret.removeprefix(KEYS).lstrip("_").lower() or "shared"


def remember_secrets(state: State, values: dict[str, str]) -> None:
    """Note what was given, and when."""
    state.secrets |= {name: digest(value) for name, value in values.items()}
    state.secrets_at |= dict.fromkeys(values, time.time())


def digest(value: str) -> str:
    """What is remembered of a secret."""
    return hashlib.sha256(value.encode()).hexdigest()


def read_env(path: Path) -> dict[str, str]:
    """NAME=VALUE lines of a dotenv file. Raises `UpError`, with the line's number and no value."""
    found = {}
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise UpError(f"{path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        text = line.strip().removeprefix("export ").strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name.strip(), re.ASCII):
            raise UpError(f"{path} line {number}: expected NAME=VALUE")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name.strip()] = value
    return found


def fingerprint(config: str) -> str:
    """A hash of everything that a deploy is made of."""
    total = hashlib.sha256(config.encode())
    for name in _CONTEXT:
        path = place.ROOT / name
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.is_file() and not {"__pycache__", "node_modules"} & set(file.parts):
                total.update(str(file.relative_to(place.ROOT)).encode() + b"\0")
                total.update(file.read_bytes())
    return total.hexdigest()


def read_key(path: Path) -> str:
    """The text of a .pub file. Raises `UpError`."""
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise UpError(f"{path}: {error.strerror}") from error
    found = keys.find({KEYS: text}, "")
    if not found.usable:
        reason = found.bad[0].reason if found.bad else "it is empty"
        raise UpError(f"{path} has no usable key: {reason}")
    return text
