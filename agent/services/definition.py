"""What a service is: one table `[service.NAME]` of a TOML file, read into a `Service`.

Every problem names the key and says what would be right. Whether a user or a program exists is
looked at here too: a service that cannot start is an error when it is loaded, not at three in the
morning.
"""

import os
import pwd
import re
import shlex
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from agent.durations import positive_duration
from agent.init.children import PATH
from agent.settings import units

T = TypeVar("T")

NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class DefinitionError(ValueError):
    """A table that is no service; the message names the key and says what would be right."""


class Restart(Enum):
    """When a service that ended is started again."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


class Probe(Enum):
    """How to see whether a service is ready, or still well."""

    TCP = "tcp"
    HTTP = "http"
    COMMAND = "command"
    FILE = "file"
    NOTIFY = "notify"


@dataclass(frozen=True, slots=True)
class Check:
    """A probe and what it looks at: a port, an address, a command line, a path.

    With `redirects`, an HTTP probe goes where it is sent.
    """

    probe: Probe
    target: str
    redirects: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """A check that is repeated; after `failures` in a row the service is started anew. Seconds."""

    check: Check
    interval: float
    timeout: float
    failures: int


@dataclass(frozen=True, slots=True)
class Service:
    """One service. Durations are seconds; `user` empty: whoever runs the agent."""

    name: str
    command: tuple[str, ...]
    user: str
    cwd: str
    env: Mapping[str, str] = field(hash=False)
    secrets: tuple[str, ...] = ()
    oneshot: bool = False
    autostart: bool = True
    restart: Restart = Restart.ON_FAILURE
    backoff: float = 1.0
    backoff_max: float = 60.0
    stable: float = 10.0
    max_restarts: int = 10
    after: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    ready: Check | None = None
    ready_timeout: float = 30.0
    health: Health | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 10.0
    shutdown_on_failure: bool = False
    nofile: int | None = None
    nice: int | None = None
    oom_score_adj: int | None = None

    @property
    def follows(self) -> frozenset[str]:
        """The services that are started before this one."""
        return frozenset(self.after) | frozenset(self.requires)


def parse(name: str, table: object, default_user: str) -> Service:
    """The service of one table. Raises `DefinitionError`."""
    if not NAME.fullmatch(name):
        raise DefinitionError("expected a name of lower-case letters, digits, - and _")
    if not isinstance(table, dict):
        raise DefinitionError("expected a table")
    keys = _Keys(table)
    user = keys.take("user", _text, default_user)
    cwd = keys.take("cwd", _said(units.absolute_path), _home_of(user))
    nothing: dict[str, str] = {}
    env = keys.take("env", _environment, nothing)
    service = Service(
        name=name,
        command=keys.take("command", _command, None),
        user=user,
        cwd=cwd,
        env=env,
        secrets=keys.take("secrets", _names(_VARIABLE, "variables"), ()),
        oneshot=keys.take("oneshot", _flag, False),
        autostart=keys.take("autostart", _flag, True),
        restart=keys.take("restart", _choice(Restart), Restart.ON_FAILURE),
        backoff=keys.take("backoff", _said(positive_duration), 1.0),
        backoff_max=keys.take("backoff_max", _said(positive_duration), 60.0),
        stable=keys.take("stable", _said(positive_duration), 10.0),
        max_restarts=keys.take("max_restarts", _whole(0, 1_000_000), 10),
        after=keys.take("after", _names(NAME, "services"), ()),
        requires=keys.take("requires", _names(NAME, "services"), ()),
        ready=keys.take("ready", _check, None) if "ready" in table else None,
        ready_timeout=keys.take("ready_timeout", _said(positive_duration), 30.0),
        health=keys.take("health", _health, None) if "health" in table else None,
        stop_signal=keys.take("stop_signal", _signal, signal.SIGTERM),
        stop_timeout=keys.take("stop_timeout", _said(positive_duration), 10.0),
        shutdown_on_failure=keys.take("on_failure", _on_failure, False),
        nofile=keys.take("nofile", _whole(16, 1 << 20), None) if "nofile" in table else None,
        nice=keys.take("nice", _whole(-20, 19), None) if "nice" in table else None,
        oom_score_adj=(
            keys.take("oom_score_adj", _whole(-1000, 1000), None)
            if "oom_score_adj" in table
            else None
        ),
    )
    keys.refuse_others()
    _require_program(service)
    return service


class _Keys:
    """Takes keys from a table, and knows which are left."""

    def __init__(self, table: Mapping[str, object]) -> None:
        self._table = table
        self._known: list[str] = []

    def take(self, key: str, read: Callable[[object], T], default: T | None) -> T:
        """The value of a key; `default` where it is not there, None where it must be."""
        self._known.append(key)
        if key not in self._table:
            if default is None:
                raise DefinitionError(f"{key} is missing")
            return default
        try:
            return read(self._table[key])
        except DefinitionError:
            raise
        except ValueError as error:
            told = f"{key} = {self._table[key]!r}: expected {error}"
            raise DefinitionError(told) from None

    def refuse_others(self) -> None:
        """Raise for the first key that is none of a service."""
        import difflib

        for key in self._table:
            if key not in self._known:
                close = difflib.get_close_matches(key, self._known, n=1)
                hint = f" (did you mean {close[0]}?)" if close else ""
                raise DefinitionError(f"{key} is no key of a service{hint}")


def _require_program(service: Service) -> None:
    program = service.command[0]
    path = service.env.get("PATH", PATH)
    found = (
        shutil.which(program, path=path)
        if "/" not in program
        else shutil.which(os.path.join(service.cwd, program))
    )
    if found is None:
        raise DefinitionError(f"command: {program} is not found, or not executable")


def _home_of(user: str) -> str:
    try:
        return pwd.getpwnam(user).pw_dir if user else "/"
    except KeyError:
        raise DefinitionError(f"user = {user!r}: expected an account that exists") from None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a text that is not empty")
    return value


def _said(parse: Callable[[str], T]) -> Callable[[object], T]:
    """A reader of a text that `parse` understands."""
    return lambda value: parse(_text(value))


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _whole(least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return read


def _command(value: object) -> tuple[str, ...]:
    words = shlex.split(value) if isinstance(value, str) else value
    if not isinstance(words, list) or not words:
        raise ValueError("a command line, or a list of its words")
    for word in words:
        if not isinstance(word, str) or "\0" in word:
            raise ValueError(f"a command line, or a list of its words ({word!r} is none)")
    return (_text(words[0]), *words[1:])


def _environment(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("a table of variables")
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name) or not isinstance(text, str) or "\0" in text:
            raise ValueError(f"variables with texts ({name} is none)")
    return dict(value)


def _names(pattern: "re.Pattern[str]", what: str) -> Callable[[object], tuple[str, ...]]:
    def read(value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise ValueError(f"a list of {what}")
        for name in value:
            if not isinstance(name, str) or not pattern.fullmatch(name):
                raise ValueError(f"a list of {what} ({name!r} is none)")
        return tuple(value)

    return read


def _choice(kind: type[Restart]) -> Callable[[object], Restart]:
    def read(value: object) -> Restart:
        try:
            return kind(value)
        except ValueError:
            raise ValueError(" or ".join(choice.value for choice in kind)) from None

    return read


def _signal(value: object) -> signal.Signals:
    name = _text(value).upper()
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise ValueError("the name of a signal, such as SIGTERM") from None


def _on_failure(value: object) -> bool:
    if value not in ("shutdown", "nothing"):
        raise ValueError('"shutdown" or "nothing"')
    return value == "shutdown"


_REDIRECTS = "redirects"


def _check(value: object) -> Check:
    if not isinstance(value, dict):
        raise ValueError("a table")
    redirects = value.get(_REDIRECTS, False)
    if redirects is not False and (redirects is not True or Probe.HTTP.value not in value):
        raise ValueError(f"{_REDIRECTS} is true or false, and for http only")
    found = {name: target for name, target in value.items() if name != _REDIRECTS}
    if len(found) != 1:
        raise ValueError(
            "one of {tcp = PORT}, {http = URL}, {command = …}, {file = …}, {notify = true}"
        )
    ((name, target),) = found.items()
    try:
        probe = Probe(name)
    except ValueError:
        raise ValueError(f"one of {', '.join(each.value for each in Probe)}") from None
    return Check(probe, _TARGETS[probe](target), redirects)


def _health(value: object) -> Health:
    if not isinstance(value, dict):
        raise ValueError("a table with a check")
    probes = {each.value for each in Probe} | {_REDIRECTS}
    keys = _Keys({key: item for key, item in value.items() if key not in probes})
    check = _check({key: item for key, item in value.items() if key in probes})
    if check.probe is Probe.NOTIFY:
        raise ValueError("a check that can be repeated: notify is only for ready")
    found = Health(
        check,
        interval=keys.take("interval", _said(positive_duration), 10.0),
        timeout=keys.take("timeout", _said(positive_duration), 3.0),
        failures=keys.take("failures", _whole(1, 1000), 3),
    )
    keys.refuse_others()
    return found


def _url(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"http://[^\s]+", text):
        raise ValueError("an address that begins with http://")
    return text


def _notify(value: object) -> str:
    if value is not True:
        raise ValueError("true")
    return ""


_TARGETS: Mapping[Probe, Callable[[object], str]] = {
    Probe.TCP: lambda value: str(_whole(1, 65535)(value)),
    Probe.HTTP: _url,
    Probe.COMMAND: lambda value: shlex.join(_command(value)),
    Probe.FILE: lambda value: units.absolute_path(_text(value)),
    Probe.NOTIFY: _notify,
}
