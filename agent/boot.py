"""The start-up order.

settings → keys → host key → sshd's configuration → listener: until here every import and every
file is read from a disk that gives 8 MiB a second, with somebody waiting. What SSH does not need
is imported after that, once the client who woke the machine has been served.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.access import hostkeys, sshd
from agent.access.connection import Access
from agent.access.gate import Gate, clock
from agent.access.jail import Jail, Policy
from agent.access.keyring import Keyring
from agent.access.listener import ListenError
from agent.access.sessions import Sessions
from agent.events import (
    BootFailed,
    BootPhase,
    Bus,
    EgressApplied,
    HomeMoved,
    ListenerOpened,
    Notice,
    StateReplaced,
    Trouble,
)
from agent.health import Health
from agent.init.children import Children, become_subreaper, reset_signals
from agent.log import Log
from agent.network import is_own
from agent.parts import Parts, Spine, keep_running
from agent.platform import home, volume
from agent.platform.account import Account, AccountError, find
from agent.platform.environment import session_environment
from agent.settings import Settings, SettingsError, load
from agent.settings.current import Current
from agent.state import banlist
from agent.stop import Life, Stop

if TYPE_CHECKING:
    from agent.egress.wall import Wall

EXIT_UNAVAILABLE = 69
EXIT_CONFIG = 78
"""Exit statuses, after sysexits(3). 0 is a stop that was asked for."""


class BootError(Exception):
    """What was asked for cannot be given, and going on without it would be worse."""


_FATAL = (BootError, AccountError, hostkeys.HostKeyError, sshd.SshdError, ListenError, OSError)


def run(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Be the container's init until a stop signal or the end of `command`; the exit status."""
    begun = time.monotonic()
    reset_signals()
    try:
        settings = load(environ, privileged=os.geteuid() == 0).settings
    except SettingsError as error:
        for problem in error.problems:
            sys.stderr.write(f"swarm-agent: {problem}\n")
        return EXIT_CONFIG
    log = Log(settings.log_format, settings.log_level, settings.log_line_limit)
    bus = Bus()
    bus.subscribe(log.write)
    try:
        return asyncio.run(_serve(settings, environ, command, bus, log, begun))
    finally:
        log.close()


@dataclass(frozen=True, slots=True)
class _Core:
    """What every phase needs."""

    settings: Settings
    environ: Mapping[str, str]
    children: Children
    sessions: Sessions
    bus: Bus


@dataclass(frozen=True, slots=True)
class _Opened:
    """What the phases made: SSH is open."""

    gate: Gate
    account: Account
    keyring: Keyring
    session_env: Mapping[str, str]
    wall: "Wall | None"


async def _serve(
    settings: Settings,
    environ: Mapping[str, str],
    command: Sequence[str],
    bus: Bus,
    log: Log,
    begun: float,
) -> int:
    stop = Stop()
    core = _Core(settings, environ, Children(), Sessions(), bus)
    core.children.watch(asyncio.get_running_loop())
    health = Health()
    bus.subscribe(health.hear)
    try:
        opened = await _open(core, begun)
    except _FATAL as error:
        bus.publish(BootFailed(problem=str(error)))
        return EXIT_CONFIG if isinstance(error, AccountError) else EXIT_UNAVAILABLE
    parts = Parts(
        Spine(
            current=Current(settings),
            environ=environ,
            account=opened.account,
            children=core.children,
            sessions=core.sessions,
            keyring=opened.keyring,
            session_env=opened.session_env,
            wall=opened.wall,
            gate=opened.gate,
            health=health,
            stop=stop,
            bus=bus,
            log=log,
            began=begun,
        )
    )
    rest = asyncio.create_task(keep_running("parts", parts.run, bus))
    try:
        life = Life(
            core.children, core.sessions, bus, stop, settings.stop_timeout, parts.stop_services
        )
        status, reason = await life.last(opened.gate, command, core.environ)
        log.start()  # what is still to come may wait for a disk
    finally:
        rest.cancel()
        await asyncio.gather(rest, return_exceptions=True)
    await parts.last_word(reason)
    return status


async def _open(core: _Core, begun: float) -> _Opened:
    settings, bus = core.settings, core.bus
    phases = _Phases(bus, begun)
    with phases("settings"):
        account = find(settings.user)
        _prepare_machine(settings, account, bus)
        session_env = _session_env(core)
    with phases("home"):
        _prepare_home(settings, account, bus)
    with phases("keys"):
        path = f"{settings.run_dir}/{sshd.AUTHORIZED_KEYS}"
        keyring = Keyring(core.environ, settings.keys_dir, path, account, bus)
        keyring.load()
    with phases("hostkey"):
        await hostkeys.prepare(settings.volume, settings.run_dir, core.children, bus)
    with phases("sshd"):
        await sshd.write_and_check(settings, account, core.children)
    with phases("state"):
        jail = _open_jail(settings, bus)
    wall = None
    if settings.egress != "open":
        with phases("egress"):
            wall = await _raise_wall(core)
    with phases("listener"):
        access = Access(settings, session_env, keyring, core.children, core.sessions, bus)
        gate = Gate(access, jail)
        gate.open()
    bus.publish(
        ListenerOpened(
            listen=str(settings.listen), user=account.name, seconds=time.monotonic() - begun
        )
    )
    return _Opened(gate, account, keyring, session_env, wall)


class _Phases:
    """Measures the phases of the boot; the first one began with the process."""

    def __init__(self, bus: Bus, begun: float) -> None:
        self._bus = bus
        self._began = begun

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        yield
        now = time.monotonic()
        self._bus.publish(BootPhase(phase=name, seconds=now - self._began))
        self._began = now


def _prepare_machine(settings: Settings, account: Account, bus: Bus) -> None:
    os.makedirs(settings.run_dir, mode=0o755, exist_ok=True)
    status = os.lstat(settings.run_dir)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        # Keys and sshd's configuration are written there: nobody else may lead us.
        raise PermissionError(
            f"{settings.run_dir} belongs to uid {status.st_uid} with mode "
            f"{status.st_mode & 0o7777:04o}: it must be ours and writable by nobody else; "
            "remove it, or name another in SWARM_RUN_DIR"
        )
    if os.geteuid() != 0:
        # An ordinary user's volume is a folder of their own, made on first use.
        os.makedirs(settings.volume, mode=0o700, exist_ok=True)
    if account.locked:
        bus.publish(
            Trouble(
                part="user",
                problem=f"the account {account.name} is locked, and sshd refuses locked accounts: "
                f"run usermod -p '*' {account.name} when the image is built "
                "(a password still does not let anybody in)",
            )
        )
    try:
        become_subreaper()
    except OSError as error:
        bus.publish(
            Notice(part="init", notice=f"orphans of sessions will not be reaped by us: {error}")
        )


def _prepare_home(settings: Settings, account: Account, bus: Bus) -> None:
    """The volume's root and the home's links; what fails costs permanence, not SSH."""
    if os.geteuid() != 0 or not os.path.isdir(settings.volume):
        return
    try:
        volume.give_to(settings.volume, account.uid, account.gid)
        paths = settings.home_links
        for linked in home.link_all(account, settings.volume, paths) if paths else ():
            if linked.moved:
                bus.publish(HomeMoved(path=str(linked.path)))
            elif str(linked):
                bus.publish(Notice(part="home", notice=str(linked)))
    except OSError as error:
        bus.publish(Notice(part="home", notice=f"{settings.volume} cannot be prepared: {error}"))


def _session_env(core: _Core) -> Mapping[str, str]:
    found = session_environment(core.environ, core.settings.session_env, core.settings.agents)
    if found.unusable:
        names = ", ".join(found.unusable)
        core.bus.publish(
            Notice(
                part="session_env",
                notice=f"not in the sessions' environment, because of line breaks: {names}",
            )
        )
    return found.variables


async def _raise_wall(core: _Core) -> "Wall | None":
    """Refuse what SWARM_EGRESS does not allow, before anybody is in. Raises `BootError`."""
    from agent.egress.wall import EgressError, Wall

    wall = Wall(core.settings, core.children, core.bus)
    try:
        await wall.raise_()
    except EgressError as error:
        if core.settings.egress == "strict":
            raise BootError(str(error)) from error
        core.bus.publish(Trouble(part="egress", problem=f"not restricted: {error}"))
        return None
    core.bus.publish(EgressApplied(mode=wall.mode))
    return wall


def _open_jail(settings: Settings, bus: Bus) -> Jail:
    """The jail, with the bans of earlier lives."""
    jail = Jail(
        Policy(
            maxretry=settings.maxretry,
            findtime=settings.findtime,
            bantime=settings.bantime,
            bantime_max=settings.bantime_max,
            ipv6_prefix=settings.ipv6_prefix,
            ignore=settings.ignoreip,
        ),
        is_own,
    )

    def replaced(reason: str, kept_as: str) -> None:
        bus.publish(StateReplaced(reason=reason, kept_as=kept_as))

    try:
        for ban in banlist.read(settings.volume, banlist.Clocks(clock()), replaced):
            jail.restore(ban)
    except (OSError, volume.NotTrusted, ValueError) as error:
        notice = f"bans of earlier lives are not known yet: {settings.volume}: {error}"
        bus.publish(Notice(part="state", notice=notice))
    return jail
