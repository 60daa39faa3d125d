"""flyctl's commands for secrets, with exactly its parser of `secrets import`."""

import sys
from collections.abc import Callable, Iterator

import msgspec

from deploy.local import shapes
from deploy.local.client import Client, FlyError
from deploy.local.fly_apps import require_app, say
from deploy.local.fly_machines import app_machines, update
from deploy.local.surface import Call

LONGEST_LINE = (64 << 10) - 1
"""Bytes: at a longer line flyctl silently stops reading (Go's bufio.Scanner)."""

MOST_BY_SET = 64 << 10
_QUOTES = '"""'


class _Listed(msgspec.Struct, frozen=True):
    secrets: list[shapes.SecretInfo]


class _Updated(msgspec.Struct, frozen=True):
    version: int


def parse(given: bytes) -> dict[str, str]:
    """Names and values of an import. Raises `FlyError`, and `IndexError` if flyctl would crash."""
    found: dict[str, str] = {}
    name, parts = "", [""]
    several = False
    for line in _lines(given):
        if several and line.endswith(_QUOTES):
            found[name] = "\n".join([*parts, line[:-3]])
            several = False
        elif several:
            parts.append(line)
        elif line.startswith("#") or not line.strip():
            continue
        else:
            name, value = _pair(line)
            several = value.startswith(_QUOTES) and not _whole(value)
            if several:
                parts = [value[3:]]
            else:
                found[name] = value[3:-3] if _whole(value) else _unquoted(value)
    return found


def _lines(given: bytes) -> Iterator[str]:
    """Lines as Go's bufio.Scanner splits them: it stops at a line that is too long."""
    lines = given.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for raw in lines:
        if len(raw) > LONGEST_LINE:
            return
        yield raw.removesuffix(b"\r").decode("utf-8", "replace")


def _pair(line: str) -> tuple[str, str]:
    """Name and value of a line, its comment cut off."""
    key, equals, value = line.partition("=")
    if not equals:
        raise FlyError(
            "Failed to parse secrets from stdin: Secrets must be provided as NAME=VALUE pairs "
            f"({line} is invalid)"
        )
    value = value.lstrip(" ")
    before, hash_, _ = value.partition("#")
    if hash_ and before.count('"') % 2 == 0:
        value = before.rstrip(" ")
    return key.strip(), value


def _whole(value: str) -> bool:
    return value.startswith(_QUOTES) and value.endswith(_QUOTES) and len(value) >= 6


def _unquoted(value: str) -> str:
    for quote in ('"', "'"):
        if value.startswith(quote) and value.endswith(quote):
            if len(value) == 1:
                raise IndexError("slice bounds out of range [1:0]")
            return value[1:-1]
    return value


def _change(call: Call, values: dict[str, str | None]) -> None:
    client = Client()
    app = call.app
    require_app(client, app)
    path = f"/apps/{app}/secrets"
    client.rest(_Updated, "POST", path, shapes.UpdateSecrets(values))
    if "--stage" in call.flags:
        print(
            "Secrets have been staged, but not set on VMs. Deploy or update machines in this app "
            "for the secrets to take effect."
        )
        return
    machines = app_machines(client, app)
    if not machines:
        print("Secrets are staged for the first deployment")
    for machine in machines:
        update(client, app, machine)


def _import(call: Call) -> None:
    try:
        given = parse(sys.stdin.buffer.read())
    except IndexError as error:
        print(f"panic: runtime error: {error}", file=sys.stderr)
        raise SystemExit(2) from error  # a Go program that crashed
    if not given:
        raise FlyError("requires at least one SECRET=VALUE pair")
    _change(call, dict(given))


def _set(call: Call) -> None:
    found: dict[str, str | None] = {}
    for word in call.words:
        name, equals, value = word.partition("=")
        if not equals:
            raise FlyError(f"could not parse secrets: '{word}': must be in the format NAME=VALUE")
        if value == "-":
            read = sys.stdin.buffer.read()
            if len(read) > MOST_BY_SET:
                raise FlyError(
                    f"error reading stdin for '{name}': Input exceeded max length of "
                    f"{MOST_BY_SET} bytes"
                )
            value = read.decode("utf-8", "replace").strip()
        found[name] = value
    _change(call, found)


def _unset(call: Call) -> None:
    _change(call, dict.fromkeys(call.words))


def _list(call: Call) -> None:
    client = Client()
    found = client.rest(_Listed, "GET", f"/apps/{call.app}/secrets").secrets
    machines = app_machines(client, call.app)
    status = "Deployed" if machines else "Staged"
    say([{"name": each.name, "digest": each.digest, "status": status} for each in found])


def _deploy(call: Call) -> None:
    client = Client()
    machines = app_machines(client, call.app)
    if not machines:
        raise FlyError("no machines available to deploy")
    for machine in machines:
        update(client, call.app, machine)


COMMANDS: dict[str, Callable[[Call], None]] = {
    "fly secrets list": _list,
    "fly secrets import": _import,
    "fly secrets set": _set,
    "fly secrets unset": _unset,
    "fly secrets deploy": _deploy,
}
