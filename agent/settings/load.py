"""Where settings come from: `SWARM_*` variables over a TOML file over defaults.

All problems are reported together, so that the user can fix them all at once.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from agent import places
from agent.settings.model import Settings, Spec

PREFIX = "SWARM_"
CONFIG_VARIABLE = "SWARM_CONFIG"
FLY_VARIABLE = "FLY_APP_NAME"
"""Set by the platform in every machine of Fly.io."""

SERVICES = "service"
"""The table of services in the settings file; agent/services reads it."""

SESSION_VARIABLES = frozenset({"SWARM_CLIENT", "SWARM_SESSION", "SWARM_SLEEP_REASON"})
"""The agent sets these in SSH sessions and hooks; commands there must not refuse them."""

NO_SETTINGS = SESSION_VARIABLES | {CONFIG_VARIABLE, "SWARM_NOTIFY"}
"""SWARM_NOTIFY is a secret; only agent/notify reads it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One setting that cannot be used, in the words the user reads."""

    setting: str
    source: str
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.setting} = {self.value!r} ({self.source}): expected {self.expected}"


class SettingsError(Exception):
    """Some settings cannot be used; `problems` has all of them."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Loaded:
    """Effective settings; the text and the source of each, by field name."""

    settings: Settings
    texts: Mapping[str, str]
    sources: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Given:
    setting: str
    source: str
    text: str


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def specs() -> dict[str, Spec]:
    """Field name → its spec, in the order of declaration."""
    return {item.name: item.metadata["spec"] for item in fields(Settings)}


def load(environ: Mapping[str, str], *, privileged: bool) -> Loaded:
    """The effective settings of a process with this environment.

    `privileged` chooses between the defaults of root and those of an ordinary user; on Fly.io some
    defaults differ again. Raises `SettingsError` with all problems.
    """
    problems: list[Problem] = []
    given = _from_file(environ, problems) | _from_environment(environ, problems)
    values: dict[str, object] = {}
    texts: dict[str, str] = {}
    sources: dict[str, str] = {}
    for name, spec in specs().items():
        default = spec.default if privileged else os.path.expanduser(spec.default_unprivileged)
        if FLY_VARIABLE in environ and spec.default_on_fly != spec.default:
            default = spec.default_on_fly
        item = given.get(name, _Given(variable(name), "default", default))
        try:
            values[name] = spec.parse(item.text)
        except ValueError as error:
            problems.append(Problem(item.setting, item.source, item.text, str(error)))
        texts[name] = item.text
        sources[name] = item.source
    if problems:
        raise SettingsError(problems)
    return Loaded(Settings(**values), texts, sources)  # type: ignore[arg-type]  # parsed by each field's own spec


def _from_environment(environ: Mapping[str, str], problems: list[Problem]) -> dict[str, _Given]:
    known = {variable(name): name for name in specs()}
    given: dict[str, _Given] = {}
    for key, text in environ.items():
        if not key.startswith(PREFIX) or key in NO_SETTINGS:
            continue
        if key in known:
            given[known[key]] = _Given(key, "environment", text)
        else:
            # The value of an unknown variable may be a secret.
            problems.append(Problem(key, "environment", "…", _suggest(key, list(known))))
    return given


def config_path(environ: Mapping[str, str]) -> str:
    """Where the settings file is, or would be."""
    return environ.get(CONFIG_VARIABLE, places.CONFIG)


def _from_file(environ: Mapping[str, str], problems: list[Problem]) -> dict[str, _Given]:
    path = config_path(environ)
    if CONFIG_VARIABLE not in environ and not os.path.exists(path):
        return {}
    import tomllib

    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            table = tomllib.loads(file.read())
    except OSError as error:
        problems.append(
            Problem(CONFIG_VARIABLE, "environment", path, f"a readable file ({error.strerror})")
        )
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(Problem(path, "file", "", f"TOML ({error})"))
        return {}
    return _from_table(table, path, problems)


def _from_table(
    table: Mapping[str, object], path: str, problems: list[Problem]
) -> dict[str, _Given]:
    known = list(specs())
    given: dict[str, _Given] = {}
    for key, value in table.items():
        if key == SERVICES:
            continue
        if key not in known:
            problems.append(Problem(key, path, str(value), _suggest(key, known)))
        elif isinstance(value, str | int) and not isinstance(value, bool):
            given[key] = _Given(key, path, str(value))
        else:
            problems.append(Problem(key, path, str(value), "a string or a whole number"))
    return given


def _suggest(key: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(key, known, n=1)
    return f"a known setting (did you mean {close[0]}?)" if close else "a known setting"
