"""Every setting of the agent: its type, default, parser and meaning, in one place.

A field `stop_timeout` is `SWARM_STOP_TIMEOUT` in the environment and `stop_timeout` in the
TOML file. The reference in docs/configuration.md is generated from this module.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from agent.settings import units

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spec:
    """How the text of one setting becomes its value."""

    parse: Callable[[str], object]
    default: str
    default_unprivileged: str
    doc: str


def _setting(
    parse: Callable[[str], T], default: str, doc: str, *, unprivileged: str | None = None
) -> T:
    fallback = default if unprivileged is None else unprivileged
    spec = Spec(parse, default, fallback, doc)
    return cast(T, field(metadata={"spec": spec}))


@dataclass(frozen=True, slots=True)
class Settings:
    """The effective settings. Durations are seconds, sizes bytes."""

    listen: units.Endpoint = _setting(
        units.endpoint,
        "*:2222",
        "Where SSH is served. Not port 22: on Fly.io that belongs to the platform.",
    )
    user: str = _setting(
        units.user_name,
        "",
        "The one account that may log in. Empty: the account with uid 1000, "
        "or whoever runs the agent where that is not root.",
    )
    volume: str = _setting(
        units.absolute_path,
        "/workspace",
        "The folder that outlives the machine. Host keys are kept in `.swarm` below it.",
        unprivileged="~/.local/state/swarm",
    )
    run_dir: str = _setting(
        units.absolute_path,
        "/run/swarm",
        "The folder for files of this life only: sshd's configuration, the control socket.",
        unprivileged="~/.local/state/swarm/run",
    )
    sshd: str = _setting(
        units.absolute_path,
        "/usr/sbin/sshd",
        "OpenSSH's server program (8.4 or later).",
    )
    login_grace_time: float = _setting(
        units.positive_duration,
        "30s",
        "How long a connection may take to log in before it is closed.",
    )
    stop_timeout: float = _setting(
        units.positive_duration,
        "20s",
        "The whole time a stop may take. Keep the platform's kill timeout above it.",
    )
    log_format: str = _setting(
        units.one_of("auto", "json", "human"),
        "auto",
        "How log lines look: json, human, or auto (human on a terminal).",
    )
    log_level: str = _setting(
        units.one_of("debug", "info", "warning", "error"),
        "info",
        "The least severe event that is logged.",
    )
