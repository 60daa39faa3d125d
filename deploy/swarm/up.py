"""`swarm up`: from nothing to a machine that answers.

Every step asks the platform what exists and does only what is missing, so the next run completes an
interrupted one.
"""

import hashlib
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.places import HOST_KEY
from deploy.swarm import life, place, secrets, ssh, template
from deploy.swarm.fly import Fly
from deploy.swarm.flyerrors import FlyError
from deploy.swarm.place import Deployed, Place
from deploy.swarm.records import ListedMachine, Volume
from deploy.swarm.wish import (
    UpError,
    Wish,
    check_settings,
    for_sessions,
    read_env,
    read_key,
    secret_name,
    wanted,
)

VOLUME = "workspace"
PATIENCE = 180.0
"""Seconds that a machine may take to answer."""

LOCAL_IMAGE = "checkout"
"""The image of a machine on this computer: none is built for it."""

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
_WATCHED = ("--ha=false", "--yes", "--detach", "--smoke-checks=false", "--dns-checks=false")
"""swarm itself waits for the host key and for a login."""


class Up:
    """Brings one machine up. `confirm` is called before money is spent or work is lost.

    `keys` (secret → text) are used instead of the key of this laptop's user.
    """

    def __init__(
        self,
        where: Place,
        fly: Fly,
        confirm: Callable[[str], bool],
        *,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self._keys = keys
        self._place = where
        self._fly = fly
        self._show = fly.show
        self._confirm = confirm
        self._name = where.name

    def run(self, wish: Wish) -> None:
        """Do what is missing. Raises `UpError`, `FlyError`, `SecretError`."""
        state = wanted(self._place.state(), wish)
        if state.image == "" and template.checkout() is None:
            raise UpError("there is no checkout to build from: swarm up NAME --image REF")
        given = self._wanted_secrets(wish, state)
        account = self._fly.require_usable()
        self._show.say(f"fly.io as {account}")
        if state.region not in (regions := self._fly.regions()):
            raise UpError(f"there is no region {state.region}: {', '.join(sorted(regions))}")
        exists = self._app(wish)
        if not self._fly.dry_run:
            self._place.keep(state)
            self._place.write_config(state)
        self._volume(exists, state, wish)
        self._address(exists, state, wish)
        changed = self._secrets(exists, state, wish, given)
        self._deploy(exists, state, wish, changed)
        if not self._fly.dry_run:
            self.connect(state)

    def redeploy(self, image: str) -> None:
        """Deploy its present image with the present settings; a sleeping machine stays asleep."""
        if not image:
            raise UpError(f"its image is unknown: swarm up {self._name}")
        state = self._place.state()
        self._place.write_config(state)
        words = ["deploy", "--app", self._name, "--config", str(self._place.config)]
        words += ["--image", image, *_WATCHED]
        self._fly.do(*words, why=f"new settings for {self._name}")
        state.deployed = fingerprint(place.fly_config(self._name, state), state)
        self._place.keep(state)

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

    def _wanted_secrets(self, wish: Wish, state: Deployed) -> dict[str, str]:
        # Before anything is created: a wrong file costs nothing then.
        environ = tomllib.loads(place.fly_config(self._name, state))["env"]
        check_settings(environ)
        found = dict(self._keys or {})
        dry = self._fly.dry_run and wish.key is None and ssh.private_key() is None
        if self._keys is None and not dry:
            found = {secret_name(): read_key(self._public_key(wish))}
        if wish.env_file is not None:
            found |= read_env(wish.env_file, environ)
            for_sessions(state, found)
        secrets.plan(found)
        return found

    def _app(self, wish: Wish) -> bool:
        if self._fly.has_app(self._name):
            self._require_ours()
            return True
        org = ["--org", wish.org] if wish.org else []
        self._fly.do("apps", "create", self._name, *org, "--yes", why=f"app {self._name}")
        return not self._fly.dry_run

    def _require_ours(self) -> None:
        """Refuse to deploy over another app of the account."""
        if self._place.exists or self._fly.machine(self._name) is None:
            return
        if not any(each.name == VOLUME for each in self._fly.volumes(self._name)):
            raise UpError(f"{self._name} is another app of yours: choose another name")

    def _volume(self, exists: bool, state: Deployed, wish: Wish) -> None:
        volumes = self._fly.volumes(self._name) if exists else []
        ours = [each for each in volumes if each.name == VOLUME]
        here = [each for each in ours if each.region == state.region]
        if ours and not here:
            volume = ours[0]
            raise UpError(
                f"the volume {volume.id} is in {volume.region}, not in {state.region}: "
                f"swarm up {self._name} --region {volume.region} keeps it, "
                f"swarm move {self._name} --region {state.region} moves it"
            )
        if here:
            self._existing_volume(here[0], wish)
            return
        words = ["--region", state.region, "--size", str(state.volume_gb), "--yes"]
        # The host needs room for the machine too, not only for the disk.
        words += ["--vm-size", state.size, "--vm-memory", str(state.memory_gb * 1024)]
        words += ["--snapshot-retention", str(state.retention)]
        if wish.snapshot:
            words += ["--snapshot-id", wish.snapshot]
        why = f"volume of {state.volume_gb} GB in {state.region}"
        try:
            self._fly.do("volumes", "create", VOLUME, "--app", self._name, *words, why=why)
        except FlyError as error:
            raise _full(error, self._name, state) from error

    def _existing_volume(self, volume: Volume, wish: Wish) -> None:
        if wish.snapshot:
            raise UpError(
                f"the volume {volume.id} exists: swarm restore {self._name} "
                f"--snapshot {wish.snapshot} replaces it with the snapshot"
            )
        if wish.volume_gb is None or wish.volume_gb == volume.size_gb:
            return
        if wish.volume_gb < volume.size_gb:
            raise UpError(f"the volume has {volume.size_gb} GB, and volumes only grow")
        extend(self._fly, self._name, volume, wish.volume_gb)

    def _address(self, exists: bool, state: Deployed, wish: Wish) -> None:
        found = self._fly.addresses(self._name) if exists else []
        if state.private or any(each.dedicated for each in found):
            return
        if wish.ipv6_only:
            self._fly.do("ips", "allocate-v6", "--app", self._name, why="an IPv6 address")
            return
        question = "a dedicated IPv4 address costs $2 a month (--ipv6-only is free): allocate one?"
        if not self._fly.dry_run and not self._confirm(question):
            raise UpError(
                "plain SSH needs a dedicated address: say yes, or --ipv6-only, or --private"
            )
        words = ["ips", "allocate-v4", "--app", self._name, "--yes"]
        self._fly.do(*words, why="a dedicated IPv4 address")

    def _secrets(self, exists: bool, state: Deployed, wish: Wish, given: Mapping[str, str]) -> bool:
        there = set(self._fly.secrets(self._name)) if exists else set()
        changed = {
            name: value
            for name, value in given.items()
            if name not in there or state.secrets.get(name) != digest(value)
        }
        if self._keys is None and wish.key is None and secret_name() in there:
            # Another laptop, or `swarm keys add`, set a newer one.
            changed.pop(secret_name(), None)
        if changed:
            secrets.give(self._fly, self._name, changed, f"secrets {', '.join(sorted(changed))}")
            remember_secrets(state, changed)
            # A new deploy is due, even if this run is interrupted before it.
            state.deployed = ""
            if not self._fly.dry_run:
                self._place.keep(state)
        return bool(changed)

    def _deploy(self, exists: bool, state: Deployed, wish: Wish, changed: bool) -> None:
        machine = self._fly.machine(self._name) if exists else None
        due = fingerprint(place.fly_config(self._name, state), state)
        if machine is not None and state.deployed == due and not (changed or wish.rebuild):
            self._show.say("nothing to deploy")
            return
        if machine is not None and machine.state in ("suspended", "suspending"):
            question = (
                f"{self._name} is suspended: a deploy loses what runs in its memory. Continue?"
            )
            if not self._fly.dry_run and not self._confirm(question):
                raise UpError(f"nothing was deployed: swarm wake {self._name}, then again")
        if not self._fly.dry_run:
            self._place.write_config(state)
        image = state.image or (LOCAL_IMAGE if state.local else "")
        folder = template.checkout()
        words = ["deploy", *([str(folder)] if folder and not image else [])]
        words += ["--app", self._name, "--config", str(self._place.config)]
        if image:
            words += ["--image", image]
        elif folder is not None:
            words += ["--dockerfile", str(folder / "container" / "Dockerfile"), "--remote-only"]
        words += _WATCHED
        words += ["--no-cache"] if wish.rebuild and not image else []
        why = f"deploy of {image}" if image else "image built, machine deployed"
        try:
            self._fly.do(*words, why=why, stream=not image)
        except FlyError as error:
            raise _full(error, self._name, state) from error
        state.deployed, state.deployed_at = due, time.time()
        if not self._fly.dry_run:
            self._place.keep(state)

    def connect(self, state: Deployed) -> None:
        """Wake the machine, fetch its host key, configure ssh, and log in once."""
        with self._show.step("waiting for the machine") as step:
            machine = life.wake(self._fly, self._name, patience=PATIENCE)
            step.outcome = f"machine {machine.id} is awake in {machine.region}"
        with self._show.step("fetching its host key over Fly's own channel"):
            state.host_key = self._host_key(machine)
        self._place.keep(state)
        addresses = [each for each in self._fly.addresses(self._name) if each.dedicated]
        addresses.sort(key=lambda each: each.type)
        address = "" if state.private or not addresses else addresses[0].address
        ssh.configure(self._place, address, state.host_key, state.key)
        if self._keys is not None and not self._ours(state):
            return  # somebody else's machine: this laptop has no key for it
        with self._show.step("logging in") as step:
            life.require_login(self._place, self._fly, PATIENCE)
            step.outcome = f"ssh {self._name} works"

    def _ours(self, state: Deployed) -> bool:
        """Whether one of the keys belongs to the user of this laptop."""
        own = Path(state.key) if state.key else ssh.private_key()
        if own is None:
            return False
        text = read_key(own.with_name(own.name + ".pub"))
        return any(text.split()[1] in given for given in (self._keys or {}).values())

    def _host_key(self, machine: ListedMachine) -> str:
        return host_key(self._fly, self._name, machine)


def host_key(fly: Fly, app: str, machine: ListedMachine) -> str:
    """A machine's host key, over Fly's own channel, where nobody in between can replace it.

    Raises `UpError`, with the end of the log if the machine exited at its start.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            said = fly.told(app, machine, f"/usr/bin/ssh-keygen -y -f /run/swarm/{HOST_KEY}", 20)
            key = " ".join(said.split()[:2])
            if key.startswith("ssh-"):
                return key
            problem = said.strip()
        except FlyError as error:
            problem = str(error)
        life.require_alive(fly, app, machine.id)
        if time.monotonic() > end:
            shown = life.last_words(fly, app)
            raise UpError(f"the machine does not report its host key: {problem}\n{shown}")
        time.sleep(0.5)


def extend(fly: Fly, app: str, volume: Volume, size_gb: int) -> None:
    """Make a volume larger. Raises `FlyError`."""
    words = ["volumes", "extend", volume.id, "--app", app, "--size", str(size_gb), "--yes"]
    fly.do(*words, why=f"volume {volume.id} has {size_gb} GB")


def remember_secrets(state: Deployed, values: Mapping[str, str]) -> None:
    """Record which secrets were set, and when."""
    state.secrets |= {name: digest(value) for name, value in values.items()}
    state.secrets_at |= dict.fromkeys(values, time.time())


def digest(value: str) -> str:
    """The recorded hash of a secret."""
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()


def fingerprint(config: str, state: Deployed) -> str:
    """A hash of everything that goes into a deploy."""
    total = hashlib.sha256(f"{config}\0{state.image}".encode())
    root = template.checkout()
    if state.image or root is None:
        return total.hexdigest()
    for name in _CONTEXT:
        path = root / name
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.is_file() and not {"__pycache__", "node_modules"} & set(file.parts):
                total.update(str(file.relative_to(root)).encode() + b"\0")
                total.update(file.read_bytes())
    return total.hexdigest()


def _full(error: FlyError, name: str, state: Deployed) -> FlyError | UpError:
    """An error that says what to do when a host or region is full."""
    said = str(error)
    if not any(word in said for word in ("insufficient", "could not reserve", "MB free")):
        return error
    return UpError(
        f"{said}\n  there is no room for {state.size} with {state.memory_gb} GB: "
        f"swarm up {name} --region OTHER where there is no volume yet, "
        f"swarm move {name} takes the volume to another host, or a smaller --size"
    )
