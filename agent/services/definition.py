"""The definition of a service: one table `[service.NAME]` of a TOML file, read into a `Service`.

Every problem names the key and what it expects. Whether the user and the program exist is checked
here too: a service that cannot start is an error when it is loaded, not at three in the morning.
"""

import os
import pwd
import re
import shlex
import shutil
import signal
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import Annotated

import msgspec
import msgspec.inspect
import msgspec.structs
from msgspec import Meta

from agent.durations import positive_duration
from agent.init.children import PATH
from agent.settings import units

NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class DefinitionError(ValueError):
    """A table that does not define a service; the message names the key and what it expects."""


class Restart(Enum):
    """When a service that ended restarts."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


class OnFailure(Enum):
    """What a service that failed for good does to the machine."""

    NOTHING = "nothing"
    SHUTDOWN = "shutdown"


# Types that a value is read into, each by its reader in `_READERS`.
class Text(str):
    """A text that is not empty."""


class Folder(str):
    """An absolute path of plain characters."""


class Url(str):
    """An address that begins with http://."""


class Duration(float):
    """Seconds, written with a unit: `90s`, `1h30m`."""


class Command(tuple[str, ...]):
    """The words of a command line."""


class Environment(dict[str, str]):
    """Variables and their values."""


class Variables(tuple[str, ...]):
    """Names of environment variables."""


class Names(tuple[str, ...]):
    """Names of services."""


class SignalNumber(int):
    """A signal, written by its name."""


class Check(msgspec.Struct, frozen=True):
    """How to see whether a service is ready, or still healthy: exactly one kind of probe.

    With `redirects`, an HTTP probe follows redirects.
    """

    tcp: Annotated[int, Meta(ge=1, le=65535)] | None = None
    http: Url | None = None
    command: Command | None = None
    file: Folder | None = None
    notify: bool = False
    redirects: bool = False

    def __post_init__(self) -> None:
        probes = (self.tcp, self.http, self.command, self.file, self.notify or None)
        if sum(probe is not None for probe in probes) != 1:
            raise ValueError(
                "one of {tcp = PORT}, {http = URL}, {command = …}, {file = …}, {notify = true}"
            )
        if self.redirects and self.http is None:
            raise ValueError("redirects for http only")


class Health(Check, frozen=True):
    """A check that is repeated; after `failures` in a row the service restarts."""

    interval: Duration = Duration(10.0)
    timeout: Duration = Duration(3.0)
    failures: Annotated[int, Meta(ge=1, le=1000)] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.notify:
            raise ValueError("a check that can be repeated: notify is only for ready")


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One service: the keys of its table, and its name. Without `user`: the login account."""

    command: Command
    name: str = ""
    user: Text = Text()
    cwd: Folder = Folder()
    env: Environment = msgspec.field(default_factory=Environment)
    secrets: Variables = Variables()
    oneshot: bool = False
    autostart: bool = True
    restart: Restart = Restart.ON_FAILURE
    backoff: Duration = Duration(1.0)
    backoff_max: Duration = Duration(60.0)
    stable: Duration = Duration(10.0)
    max_restarts: Annotated[int, Meta(ge=0, le=1_000_000)] = 10
    after: Names = Names()
    requires: Names = Names()
    ready: Check | None = None
    ready_timeout: Duration = Duration(30.0)
    health: Health | None = None
    stop_signal: SignalNumber = SignalNumber(signal.SIGTERM)
    stop_timeout: Duration = Duration(10.0)
    on_failure: OnFailure = OnFailure.NOTHING
    nofile: Annotated[int, Meta(ge=16, le=1 << 20)] | None = None
    nice: Annotated[int, Meta(ge=-20, le=19)] | None = None
    oom_score_adj: Annotated[int, Meta(ge=-1000, le=1000)] | None = None

    @property
    def follows(self) -> frozenset[str]:
        """The services that are started before this one."""
        return frozenset(self.after) | frozenset(self.requires)


def parse(name: str, table: object, default_user: str) -> Service:
    """Read the table of a service. Raises `DefinitionError`."""
    if not NAME.fullmatch(name):
        raise DefinitionError("expected a name of lower-case letters, digits, - and _")
    if not isinstance(table, dict):
        raise DefinitionError("expected a table")
    _refuse_unknown(table, Service)
    for key, kind in _INNER.items():
        if isinstance(inner := table.get(key), dict):
            _refuse_unknown(inner, kind)
    try:
        service = msgspec.convert(table, Service, dec_hook=_read)
    except msgspec.ValidationError as error:
        raise DefinitionError(_explained(error, table)) from None
    user = service.user or default_user
    cwd = service.cwd or _home_of(user)
    service = msgspec.structs.replace(service, name=name, user=Text(user), cwd=Folder(cwd))
    _require_program(service)
    return service


def _refuse_unknown(table: Mapping[str, object], kind: type[msgspec.Struct]) -> None:
    """Refuse unknown keys with a hint: msgspec does not suggest the right name."""
    known = [field for field in kind.__struct_fields__ if field != "name"]
    for key in table:
        if key not in known:
            import difflib

            close = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise DefinitionError(f"{key} is not a key of a service{hint}")


def _explained(error: msgspec.ValidationError, table: Mapping[str, object]) -> str:
    """msgspec's error in the terms of the TOML table."""
    message, _, path = str(error).partition(" - at `$.")
    if not path:
        return f"{message.split('`')[1]} is missing"
    value: object = table
    kind: msgspec.inspect.Type = msgspec.inspect.type_info(Service)
    for key in path.rstrip("`").split("."):
        if isinstance(value, dict) and isinstance(kind, msgspec.inspect.StructType):
            value = value[key]
            (kind,) = (field.type for field in kind.fields if field.name == key)
        if isinstance(kind, msgspec.inspect.UnionType):  # with None: the key may be left out
            kind = kind.types[0]
    name = path.rstrip("`")
    return f"{name} = {value!r}: expected {error.__cause__ or _expected(kind)}"


def _expected(kind: msgspec.inspect.Type) -> str:
    """What a field expects, for types that msgspec reads itself."""
    match kind:
        case msgspec.inspect.IntType():
            return f"a whole number from {kind.ge} to {kind.le}"
        case msgspec.inspect.EnumType():
            return " or ".join(f'"{choice.value}"' for choice in kind.cls)
        case msgspec.inspect.StructType():
            return "a table"
        case _:
            return "true or false"


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


def _read(kind: type, value: object) -> object:
    return kind(_READERS[kind](value))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a text that is not empty")
    return value


def _url(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"http://[^\s]+", text):
        raise ValueError("an address that begins with http://")
    return text


def _command(value: object) -> list[str]:
    words = shlex.split(value) if isinstance(value, str) else value
    if not isinstance(words, list) or not words:
        raise ValueError("a command line, or a list of its words")
    for word in words:
        if not isinstance(word, str) or "\0" in word:
            raise ValueError(f"a command line, or a list of its words ({word!r} is not valid)")
    return [_text(words[0]), *words[1:]]


def _environment(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("a table of variables")
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name) or not isinstance(text, str) or "\0" in text:
            raise ValueError(f"variables with text values ({name} is not valid)")
    return value


def _list_of(pattern: "re.Pattern[str]", what: str, value: object) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"a list of {what}")
    for name in value:
        if not isinstance(name, str) or not pattern.fullmatch(name):
            raise ValueError(f"a list of {what} ({name!r} is not valid)")
    return value


def _signal(value: object) -> signal.Signals:
    name = _text(value).upper()
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise ValueError("the name of a signal, such as SIGTERM") from None


_INNER: Mapping[str, type[msgspec.Struct]] = {"ready": Check, "health": Health}

_READERS: Mapping[type, Callable[[object], object]] = {
    Text: _text,
    Url: _url,
    Folder: lambda value: units.absolute_path(_text(value)),
    Duration: lambda value: positive_duration(_text(value)),
    Command: _command,
    Environment: _environment,
    Variables: partial(_list_of, _VARIABLE, "variables"),
    Names: partial(_list_of, NAME, "services"),
    SignalNumber: _signal,
}
