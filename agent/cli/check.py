"""`swarm-agent check`: every effective setting and where it comes from, and the machine.

Nothing is started and nothing is written.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from time import time

import click

from agent import words
from agent.access import keys
from agent.access.keyring import no_login, seen_by_sshd
from agent.cli.tables import table
from agent.platform.account import AccountError, find
from agent.platform.volume import is_mounted
from agent.settings import Loaded, Settings, SettingsError, load

EXIT_CONFIG = 78
"""As of `swarm-agent run` with settings that cannot be used."""


@click.command()
def check() -> None:
    """Show every setting with its source, and look at the machine, without starting anything."""
    try:
        loaded = load(os.environ, privileged=os.geteuid() == 0)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(f"swarm-agent: {problem}", err=True)
        raise SystemExit(EXIT_CONFIG) from error
    click.echo(settings_table(loaded) + "\n")
    findings = list(machine(loaded.settings))
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}: {finding.says}")
    raise SystemExit(0 if all(finding.ok for finding in findings) else 1)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    says: str


def settings_table(loaded: Loaded) -> str:
    """Setting, value and source of every setting."""
    rows = [
        (item.name, _shown(item.name, loaded.settings), loaded.sources[item.name])
        for item in fields(Settings)
    ]
    return table(("setting", "value", "source"), rows)


def machine(settings: Settings) -> Iterator[Finding]:
    """Look at everything SSH needs on this machine."""
    yield _look("sshd", lambda: _sshd(settings.sshd))
    yield _look("login account", lambda: _account(settings.user))
    yield _look("volume", lambda: _volume(settings.volume))
    yield from _keys(settings)


def _shown(name: str, settings: Settings) -> str:
    value = getattr(settings, name)
    match value:
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}s"
        case tuple():
            return ", ".join(map(str, value)) or "(none)"
        case None:
            return "(none)"
    return str(value) or "(chosen at start)"


def _look(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except (OSError, AccountError) as error:
        return Finding(what, False, str(error))


def _sshd(program: str) -> str:
    if shutil.which(program) is None:
        raise OSError(f"{program} cannot be run: install openssh-server, or set SWARM_SSHD")
    return f"{program} found"


def _account(name: str) -> str:
    account = find(name)
    if account.locked:
        raise AccountError(
            f"{account.name} is locked, and sshd refuses locked accounts: "
            f"run usermod -p '*' {account.name}"
        )
    return f"{account.name} (uid {account.uid}), home {account.home}, shell {account.shell}"


def _volume(path: str) -> str:
    if not os.path.isdir(path):
        raise OSError(f"{path} is no folder: host keys will not outlive this machine")
    status = os.statvfs(path)
    if status.f_flag & os.ST_RDONLY or not os.access(path, os.W_OK):
        raise OSError(f"{path} cannot be written: host keys will not outlive this machine")
    free = words.size(status.f_bavail * status.f_frsize)
    where = "a mounted volume" if is_mounted(path) else "a folder, not a mounted volume"
    return f"{path} is {where}, {free} free"


def _keys(settings: Settings) -> Iterator[Finding]:
    found, seen = keys.find(os.environ, settings.keys_dir), seen_by_sshd(settings)
    for bad in found.bad:
        yield Finding("key", False, str(bad))
    for entry in found.usable:
        problem = entry.lets_nobody_in(time(), seen)
        says = f"{entry.name}: {entry.key.type} {entry.key.fingerprint}"
        yield Finding("key", not problem, f"{says}: {problem}" if problem else says)
    for odd in found.odd:
        yield Finding("key", True, f"note: {odd}")
    if problem := no_login(found, seen):
        yield Finding("keys", False, problem)
