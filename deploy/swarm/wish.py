"""The user's options for `swarm up`, checked before anything is created and costs money."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.access import keys
from agent.platform.environment import OWN_SECRETS
from agent.settings import SettingsError, load
from deploy import sizes
from deploy.swarm import dotenv, secrets
from deploy.swarm.place import Deployed

KEYS = "SSH_AUTHORIZED_KEYS"
SESSION_ENV = "SWARM_SESSION_ENV"
REPOSITORY = "SWARM_CHECKPOINT_REPO"
_VOLUME_GB = (1, 500)


class UpError(Exception):
    """A step is impossible; the message says what to do."""


@dataclass(frozen=True)
class Wish:
    """The user's options; None or empty: unchanged."""

    region: str | None = None
    size: str | None = None
    memory_gb: int | None = None
    volume_gb: int | None = None
    image: str | None = None
    build: bool = False
    private: bool = False
    ipv6_only: bool = False
    env_file: Path | None = None
    key: Path | None = None
    snapshot: str = ""
    org: str = ""
    rebuild: bool = False
    local: bool = False


def wanted(state: Deployed, wish: Wish) -> Deployed:
    """The requested state. Raises `UpError` if it is impossible."""
    before = state.size
    for name in ("region", "size", "memory_gb", "volume_gb", "image"):
        value = getattr(wish, name)
        if value is not None:
            setattr(state, name, value)
    if wish.build:
        state.image = ""
    state.local = state.local or wish.local
    state.private = state.private or wish.private
    if wish.key is not None:
        state.key = str(wish.key.absolute()).removesuffix(".pub")
    if state.size != before and wish.memory_gb is None and state.size in sizes.PRESETS:
        least = -(-sizes.PRESETS[state.size].memory_mb // 1024)
        state.memory_gb = max(state.memory_gb, least)
    require_buyable(state.size, state.memory_gb)
    if not _VOLUME_GB[0] <= state.volume_gb <= _VOLUME_GB[1]:
        raise UpError(f"a volume has {_VOLUME_GB[0]} to {_VOLUME_GB[1]} GB, not {state.volume_gb}")
    if not re.fullmatch(r"[a-z]{3}", state.region, re.ASCII):
        raise UpError(f"{state.region} is not a region: fly platform regions lists them")
    return state


def require_buyable(size: str, memory_gb: int) -> None:
    """Check that Fly.io sells such a machine. Raises `UpError`."""
    if problem := sizes.problem(size, memory_gb * 1024):
        raise UpError(problem)


def read_env(path: Path, env: Mapping[str, str]) -> dict[str, str]:
    """The values of a dotenv file, all of which can be sent; SWARM_ settings are checked.

    `env` is what the machine's fly.toml sets. Raises `UpError`.
    """
    try:
        found = dotenv.read(path)
        secrets.plan(found)
    except (dotenv.EnvFileError, secrets.SecretError) as error:
        raise UpError(str(error)) from error
    check_settings({**env, **{k: v for k, v in found.items() if k.startswith("SWARM_")}})
    return found


def check_settings(environ: Mapping[str, str]) -> None:
    """Check that the agent accepts these settings. Raises `UpError`."""
    try:
        load(environ, privileged=True)
    except SettingsError as error:
        shown = "\n  ".join(str(problem) for problem in error.problems)
        raise UpError(f"the agent would not start with these settings:\n  {shown}") from error


def for_sessions(state: Deployed, names: Mapping[str, str]) -> None:
    """Let sessions get the named values; sessions get no others.

    Secrets that open the copy of the checkpoints are left out: no session may destroy that copy.
    """
    from agent.checkpoints.running import CREDENTIALS  # imports much that no other command needs

    repository = names.get(REPOSITORY) or state.env.get(REPOSITORY, "")
    given = [
        name
        for name in names
        if not name.startswith(("SWARM_", KEYS))
        and name not in OWN_SECRETS
        and not (repository and CREDENTIALS.fullmatch(name))
    ]
    default = ",".join(load({}, privileged=True).settings.session_env)
    known = state.env.get(SESSION_ENV, default).replace(",", " ").split()
    missing = [name for name in given if name not in known]
    if missing and SESSION_ENV not in names:
        state.env[SESSION_ENV] = ",".join([*known, *missing])


def secret_name(person: str = "") -> str:
    """The secret with a person's keys; by default the laptop's user's."""
    who = person or os.environ.get("USER") or "me"
    return f"{KEYS}_{re.sub(r'[^A-Z0-9]', '_', who.upper())}"


def person_of(secret: str) -> str:
    """The person whose keys a secret has."""
    return secret.removeprefix(KEYS).lstrip("_").lower() or "shared"


def read_key(path: Path) -> str:
    """The text of a .pub file. Raises `UpError`."""
    try:
        text = path.read_text(errors="replace").strip()
    except OSError as error:
        raise UpError(f"{path}: {error.strerror}") from error
    return checked_key(text, str(path))


def checked_key(text: str, where: str) -> str:
    """Keys as text. Raises `UpError` if none is usable."""
    found = keys.find({KEYS: text}, "")
    if not found.usable:
        reason = found.bad[0].reason if found.bad else "it is empty"
        raise UpError(f"{where} has no usable key: {reason}")
    return text
