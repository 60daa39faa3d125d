"""The command lines that flyctl accepts: commands and flags of its published reference.

surface.json has the commands that the stand-in knows. Anything else is refused as flyctl does,
so a command line that works here is one that flyctl accepts.
"""

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

_FILE = Path(__file__).with_name("surface.json")


class UsageError(Exception):
    """A command line that flyctl refuses."""


class _Flag(msgspec.Struct, frozen=True):
    name: str
    short: str | None
    takes: str | None


class _Command(msgspec.Struct, frozen=True):
    usage: str
    flags: list[_Flag]


class _Surface(msgspec.Struct, frozen=True):
    commands: dict[str, _Command]


@dataclass(frozen=True, slots=True)
class Call:
    """A parsed command line. A flag without a value has the value `true`."""

    command: str
    words: tuple[str, ...]
    flags: dict[str, str]

    @property
    def app(self) -> str:
        """Its app: from the flag, FLY_APP or a fly.toml here. Raises `UsageError`."""
        named = self.flags.get("--app") or os.environ.get("FLY_APP")
        if named:
            return named
        try:
            return str(tomllib.loads(Path("fly.toml").read_text())["app"])
        except (OSError, KeyError, ValueError):
            raise UsageError(
                "the config for your app is missing an app name, add an app field to the fly.toml "
                "file or specify with the -a flag"
            ) from None


def parse(argv: Sequence[str]) -> Call:
    """Parse a command line. Raises `UsageError`."""
    commands = _surface().commands
    for length in range(min(3, len(argv)), 0, -1):
        name = " ".join(("fly", *argv[:length]))
        if name in commands:
            return _parse_flags(name, commands[name].flags, list(argv[length:]))
    raise UsageError(f'unknown command "{" ".join(argv[:2])}" for "flyctl"')


def _parse_flags(command: str, known: Sequence[_Flag], rest: list[str]) -> Call:
    words: list[str] = []
    flags: dict[str, str] = {}
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        flag = next((each for each in known if name in (each.name, each.short)), None)
        if flag is None:
            raise UsageError(f"unknown flag: {name}")
        if flag.takes is None:
            flags[flag.name] = value if equals else "true"
        elif equals:
            flags[flag.name] = value
        elif rest:
            flags[flag.name] = rest.pop(0)
        else:
            raise UsageError(f"flag needs an argument: {name}")
    return Call(command, tuple(words), flags)


@cache
def _surface() -> _Surface:
    return msgspec.json.decode(_FILE.read_bytes(), type=_Surface)
