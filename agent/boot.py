"""The start-up order.

settings → keys → host key → sshd's configuration → listener: until here every import and every
file is read from a disk that gives 8 MiB a second, with somebody waiting. What SSH does not need
is imported after that, once the client who woke the machine has been served.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.access import hostkeys, sshd, utmp
from agent.access.connection import Access
from agent.access.gate import Gate, clock
from agent.access.jail import Jail, Policy
from agent.access.keyring import Keyring
from agent.access.listener import ListenError
from agent.access.sessions import Sessions
from agent.events import (
    BootPhase,
    Bus,
    EgressApplied,
    HomeMoved,
    ListenerOpened,
    Notice,
    StateReplaced,
    Trouble,
)
from agent.init.children import Children, become_subreaper
from agent.network import is_own
from agent.platform import home, volume
from agent.platform.account import Account, AccountError, find, make_runtime_folder
from agent.platform.environment import session_environment
from agent.settings import Settings
from agent.state import banlist

if TYPE_CHECKING:
    from agent.egress.wall import Wall
    from agent.handover import Handover


class BootError(Exception):
    """What was asked for cannot be given, and going on without it would be worse."""


FATAL = (BootError, AccountError, hostkeys.HostKeyError, sshd.SshdError, ListenError, OSError)
"""What `open_ssh` raises where SSH cannot be served."""


@dataclass(frozen=True, slots=True)
class Core:
    """What every phase needs."""

    settings: Settings
    environ: Mapping[str, str]
    children: Children
    sessions: Sessions
    bus: Bus


@dataclass(frozen=True, slots=True)
class Opened:
    """What the phases made: SSH is open."""

    gate: Gate
    account: Account
    keyring: Keyring
    session_env: Mapping[str, str]
    wall: "Wall | None"


async def open_ssh(
    core: Core, begun: float, held: "Handover | None", *, first: bool, configure: bool
) -> Opened:
    """Go through the phases. Raises what `FATAL` has; `held` can be used again then.

    With `held`, and where it is not the `first` time, this process has re-executed. What it needs
    for SSH is in place: a full disk or too many processes are no reason to end what is open. sshd's
    configuration is written with `configure`.
    """
    settings, bus = core.settings, core.bus
    phases = _Phases(bus, begun)
    with phases("settings"):
        account = find(settings.user)
        _prepare_machine(settings, account, bus)
        session_env = _session_env(core, account)
    if first:  # where programs of the account run, its home is theirs
        with phases("home"):
            _prepare_home(settings, account, bus)
    with phases("keys"):
        path = f"{settings.run_dir}/{sshd.AUTHORIZED_KEYS}"
        keyring = Keyring(core.environ, settings, path, account, bus)
        keyring.load(in_place=held is not None)
    with phases("hostkey"):
        if held is None or not os.path.exists(f"{settings.run_dir}/{hostkeys.NAME}"):
            await hostkeys.prepare(settings.volume, settings.run_dir, core.children, bus)
    with phases("sshd"):
        if configure:
            await sshd.write_and_check(settings, account, core.children)
    with phases("state"):
        jail = _open_jail(settings, bus, read=held is None)
    wall = None
    if settings.egress != "open" or (held is not None and held.egress is not None):
        with phases("egress"):
            wall = await _raise_wall(core, held)
    with phases("listener"):
        access = Access(settings, session_env, keyring, core.children, core.sessions, bus)
        gate = Gate(access, jail)
        gate.open(None if held is None else held.gate)
    bus.publish(
        ListenerOpened(
            listen=str(settings.listen), user=account.name, seconds=time.monotonic() - begun
        )
    )
    return Opened(gate, account, keyring, session_env, wall)


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
    if os.geteuid() == 0:
        try:
            make_runtime_folder(account)
            utmp.prepare()
        except OSError as error:
            bus.publish(Notice(part="user", notice=f"no folder for sockets: {error}"))
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


def _session_env(core: Core, account: Account) -> Mapping[str, str]:
    found = session_environment(
        core.environ, core.settings.session_env, core.settings.agents, account
    )
    if found.unusable:
        names = ", ".join(found.unusable)
        core.bus.publish(
            Notice(
                part="session_env",
                notice=f"not in the sessions' environment, because of line breaks: {names}",
            )
        )
    return found.variables


async def _raise_wall(core: Core, held: "Handover | None") -> "Wall | None":
    """Refuse what SWARM_EGRESS does not allow, before anybody is in. Raises `BootError`."""
    from agent.egress.wall import EgressError, Wall

    # Addresses are known by no name any more: those of one that is allowed no longer must not stay.
    same = held is not None and held.settings.egress_allow == core.settings.egress_allow
    known = held.egress if held is not None and same else None
    wall = Wall(core.settings, core.children, core.bus, known)
    try:
        if core.settings.egress == "open":
            await wall.remove()
            return None
        await wall.raise_()
    except EgressError as error:
        if held is not None and held.settings == core.settings:
            notice = f"the rules from before are in force: {error}"
            core.bus.publish(Notice(part="egress", notice=notice))
            return wall
        if core.settings.egress == "strict":
            raise BootError(str(error)) from error
        core.bus.publish(Trouble(part="egress", problem=f"not restricted: {error}"))
        return None
    core.bus.publish(EgressApplied(mode=wall.mode))
    return wall


def _open_jail(settings: Settings, bus: Bus, *, read: bool) -> Jail:
    """The jail; with `read`, it has the bans of earlier lives."""
    jail = Jail(
        Policy(
            maxretry=settings.maxretry,
            findtime=settings.findtime,
            bantime=settings.bantime,
            bantime_max=settings.bantime_max,
            ipv6_prefix=settings.ipv6_prefix,
            ignore=settings.ignoreip,
            dry_run=settings.ban_dry_run,
        ),
        is_own,
    )

    if not read:
        return jail

    def replaced(reason: str, kept_as: str) -> None:
        bus.publish(StateReplaced(reason=reason, kept_as=kept_as))

    try:
        for ban in banlist.read(settings.volume, banlist.Clocks(clock()), replaced):
            jail.restore(ban)
    except (OSError, volume.NotTrusted) as error:
        notice = f"bans of earlier lives are not known yet: {settings.volume}: {error}"
        bus.publish(Notice(part="state", notice=notice))
    return jail
