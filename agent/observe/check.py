"""The report of `swarm-agent check`: every effective setting, and what SSH needs on the machine.

The running agent makes the report, because only it has its environment. It starts and writes
nothing.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from time import time

from agent import words
from agent.access import keys
from agent.access.keyring import no_login, seen_by_sshd
from agent.access.room import FEW, LOGIN, Tasks, usual_limit
from agent.observe.reports import CheckReport, FindingReport, SettingReport
from agent.platform import apiaccess, terminals
from agent.platform.account import AccountError, find, refused_because
from agent.platform.volume import is_mounted
from agent.settings import Loaded, Settings
from agent.settings.load import variable


def check(loaded: Loaded, environ: Mapping[str, str]) -> CheckReport:
    """Settings with their sources, and everything SSH needs on this machine."""
    settings = [
        SettingReport(variable(name), text, loaded.sources[name])
        for name, text in loaded.texts.items()
    ]
    return CheckReport(settings, list(_findings(loaded.settings, environ)))


def _findings(settings: Settings, environ: Mapping[str, str]) -> Iterator[FindingReport]:
    yield _look("sshd", lambda: _sshd(settings.sshd))
    yield _look("login account", lambda: _account(settings.user))
    yield _look("volume", lambda: _volume(settings.volume))
    if os.path.exists(settings.fly_api):
        yield _look("Machines API", lambda: _fly_api(settings))
    yield _look("processes", lambda: _processes(settings))
    yield _look("terminals", _terminals)
    yield from _keys(environ, settings)


def _look(what: str, look: Callable[[], str]) -> FindingReport:
    try:
        return FindingReport(what, True, look())
    except (OSError, AccountError) as error:
        return FindingReport(what, False, str(error))


def _sshd(program: str) -> str:
    if shutil.which(program) is None:
        raise OSError(f"{program} cannot be run: install openssh-server, or set SWARM_SSHD")
    return f"{program} found"


def _account(name: str) -> str:
    account = find(name)
    refused = refused_because(account)
    if refused is not None:
        raise AccountError(refused)
    return f"{account.name} (uid {account.uid}), home {account.home}, shell {account.shell}"


def _fly_api(settings: Settings) -> str:
    account = find(settings.user)
    if account.uid == os.geteuid():
        return f"the agent runs as {account.name}, so a login may use the API as well"
    if apiaccess.may_use(settings.fly_api, account):
        raise OSError(
            f"{account.name} may use {settings.fly_api}, so it can stop or change the machine"
        )
    return f"{settings.fly_api} is closed to {account.name}"


def _processes(settings: Settings) -> str:
    tasks = Tasks.read()
    there = f"{tasks.now} of at most {tasks.most} processes run"
    if settings.max_processes is None or os.geteuid() != 0:
        return f"{there}; the login account has no limit of its own"
    limit = usual_limit(settings.max_processes, tasks)
    return f"{there}; the login account may have {limit}, each login {LOGIN} beyond what runs"


def _terminals() -> str:
    left = terminals.left()
    if left < FEW:
        raise OSError(f"only {left} more can be opened: the next login frees some")
    return f"{left} more can be opened"


def _volume(path: str) -> str:
    if not os.path.isdir(path):
        raise OSError(f"{path} is not a folder: host keys are lost when this machine stops")
    status = os.statvfs(path)
    if status.f_flag & os.ST_RDONLY or not os.access(path, os.W_OK):
        raise OSError(f"{path} cannot be written: host keys are lost when this machine stops")
    free = words.size(status.f_bavail * status.f_frsize)
    where = "a mounted volume" if is_mounted(path) else "a folder, not a mounted volume"
    return f"{path} is {where}, {free} free"


def _keys(environ: Mapping[str, str], settings: Settings) -> Iterator[FindingReport]:
    found, seen = keys.find(environ, settings.keys_dir), seen_by_sshd(settings)
    for bad in found.bad:
        yield FindingReport("key", False, str(bad))
    for entry in found.usable:
        problem = entry.lets_nobody_in(time(), seen)
        says = f"{entry.name}: {entry.key.type} {entry.key.fingerprint}"
        yield FindingReport("key", not problem, f"{says}: {problem}" if problem else says)
    for odd in found.odd:
        yield FindingReport("key", True, f"note: {odd}")
    if problem := no_login(found, seen):
        yield FindingReport("keys", False, problem)
