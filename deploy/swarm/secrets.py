"""Secrets for the platform: every value arrives byte for byte, or is refused by name.

flyctl's `secrets import` has no escapes. Its parser cuts at a `#`, strips quotes, ends a value of
several lines at the first line that ends in three quotes, drops a line's carriage return, and
stops silently at a line of 64 KiB. So each value gets a form that survives it: three quotes, single
quotes, or `secrets set NAME=-`, which reads one value from standard input and trims it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.swarm.fly import Fly

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
LONGEST_LINE = (64 << 10) - 1
"""Bytes of a line without its line break (Go's bufio.Scanner)."""

MOST_ALONE = 64 << 10
"""Bytes that `secrets set NAME=-` reads."""

_QUOTES = '"""'


class SecretError(Exception):
    """A value that cannot be sent to the platform; the message has its name, never the value."""


@dataclass(frozen=True)
class Plan:
    """How values are sent: together by one `secrets import`, or one by one."""

    imported: bytes
    alone: Mapping[str, str]


def plan(values: Mapping[str, str]) -> Plan:
    """Choose the form of every value. Raises `SecretError`."""
    lines: list[str] = []
    alone: dict[str, str] = {}
    for name, value in values.items():
        form = _form(name, value)
        if form is not None:
            lines.append(form)
        elif problem := _problem(value):
            raise SecretError(f"secret {name} cannot be given to the platform: {problem}")
        else:
            alone[name] = value
    return Plan("".join(f"{line}\n" for line in lines).encode(), alone)


def give(fly: Fly, app: str, values: Mapping[str, str], why: str) -> None:
    """Stage the values through standard input, never on a command line. Raises `SecretError`."""
    planned = plan(values)
    if planned.imported:
        words = ["secrets", "import", "--app", app, "--stage"]
        fly.do(*words, given=planned.imported, why=why)
    for name, value in planned.alone.items():
        words = ["secrets", "set", f"{name}=-", "--app", app, "--stage"]
        fly.do(*words, given=value.encode(), why=f"{why} ({name})")


def _form(name: str, value: str) -> str | None:
    """The lines of an import that flyctl reads as this value; None if there are none."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    first, newline, rest = value.partition("\n")
    before, hash_, _ = first.partition("#")
    cut_in_quotes = bool(hash_) and before.count('"') % 2 == 1
    if not newline:
        form = f"{name}='{value}'" if cut_in_quotes else f"{name}={_QUOTES}{value}{_QUOTES}"
    elif cut_in_quotes or first.endswith(_QUOTES):
        return None
    else:
        form = f"{name}={_QUOTES}{value}{_QUOTES}"
        # The last line ends with our own quotes.
        inner = [first, *rest.split("\n")[:-1]]
        if any(line.endswith((_QUOTES, "\r")) for line in inner):
            return None
    if any(len(line.encode()) > LONGEST_LINE for line in form.split("\n")):
        return None
    return None if "\0" in value else form


def _problem(value: str) -> str:
    """Why a value cannot be sent alone either; empty if it can."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if "\0" in value:
        return "it has a NUL byte, which no environment can hold"
    if size > MOST_ALONE:
        return f"it has {size} bytes, and a line or value may have {MOST_ALONE}"
    if value.strip(GO_SPACE) != value:
        return "it begins or ends with white space and has line ends or quotes that flyctl changes"
    return ""


GO_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""The characters that Go's strings.TrimSpace removes."""
