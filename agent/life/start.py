"""Opening SSH: the start-up order.

settings → keys → host key → sshd's configuration → listener: up to here every import and file is
read from a disk of 8 MiB/s while a client waits. Everything that SSH does not need is imported
later, once the client who woke the machine has been served (life/parts.py).
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agent.access import hostkeys, sshd, utmp
from agent.access.connection import Access
from agent.access.gate import Gate, GateRecord
from agent.access.jail import Jail, Policy
from agent.access.keyring import Keyring
from agent.access.known import Known
from agent.access.listener import ListenError
from agent.access.room import Room
from agent.access.sessions import Sessions
from agent.bus import Bus
from agent.clock import clock
from agent.events import (
    BootPhase,
    EgressApplied,
    ListenerOpened,
    Notice,
    StateReplaced,
    Trouble,
)
from agent.init.children import become_subreaper
from agent.life.records import Records
from agent.machine import Machine
from agent.network import is_own
from agent.platform import apiaccess, home, homekeeper, volume
from agent.platform.account import (
    Account,
    AccountError,
    find,
    make_runtime_folder,
    refused_because,
)
from agent.platform.environment import image_names, session_environment
from agent.settings import Settings
from agent.state import banlist, knownlist

if TYPE_CHECKING:
    from agent.egress.wall import Wall


class StartError(Exception):
    """A requested protection is impossible, and running without it would be worse."""


FATAL = (StartError, AccountError, hostkeys.HostKeyError, sshd.SshdError, ListenError, OSError)
"""What `open_ssh` raises if SSH cannot be served."""


async def open_ssh(machine: Machine, records: Records, *, first: bool, configure: bool) -> None:
    """Go through the phases. Raises the errors in `FATAL`, and can be called again then.

    After a re-execution (not `first`) the files that SSH needs are in place: a full disk or too
    many processes must not end open sessions. `configure`: write and check sshd's configuration.
    """
    settings, bus = machine.current.value, machine.bus
    before = records.find(Settings)
    phases = _Phases(bus, machine.began)
    with phases("settings"):
        account = machine.account = find(settings.user)
        _prepare_machine(settings, account, bus)
        machine.session_env = _session_env(machine)
    if first:  # later, programs of the account may be using its home
        with phases("home"):
            await _prepare_home(machine)
    with phases("keys"):
        path = f"{settings.run_dir}/{sshd.AUTHORIZED_KEYS}"
        machine.keyring = Keyring(machine.environ, settings, path, account, bus)
        machine.keyring.load(in_place=before is not None)
    with phases("hostkey"):
        if before is None or not os.path.exists(f"{settings.run_dir}/{hostkeys.NAME}"):
            await hostkeys.prepare(settings.volume, settings.run_dir, machine.children, bus)
    with phases("sshd"):
        if configure and not (before == settings and sshd.in_place(settings, account)):
            problem = await sshd.write_and_check(settings, account, machine.children)
            if problem:
                bus.publish(Trouble(part="sshd", problem=problem))
    with phases("state"):
        record = records.of(GateRecord, lambda: _gate_record(settings, bus))
        record.jail.follow(_policy(settings))
    machine.wall = None
    if settings.egress != "open" or (before is not None and before.egress != "open"):
        with phases("egress"):
            machine.wall = await _open_wall(machine, records)
    with phases("listener"):
        machine.sessions = records.of(Sessions, Sessions)
        machine.gate = Gate(record, _access(machine))
    bus.publish(
        ListenerOpened(
            listen=str(settings.listen),
            user=account.name,
            seconds=time.monotonic() - machine.began,
        )
    )


def _access(machine: Machine) -> Access:
    settings = machine.current.value
    return Access(
        settings,
        machine.session_env,
        machine.keyring,
        machine.children,
        Room(settings.max_processes, machine.account, machine.children, machine.bus),
        machine.sessions,
        machine.bus,
    )


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
        # Keys and sshd's configuration are written there: nobody else may redirect us.
        raise PermissionError(
            f"{settings.run_dir} belongs to uid {status.st_uid} with mode "
            f"{status.st_mode & 0o7777:04o}: it must belong to uid {os.geteuid()} and be "
            "writable by nobody else; remove it, or name another folder in SWARM_RUN_DIR"
        )
    if os.geteuid() != 0:
        # An ordinary user's volume is a folder of their own, made on first use.
        os.makedirs(settings.volume, mode=0o700, exist_ok=True)
    refused = refused_because(account)
    if refused is not None:
        bus.publish(Trouble(part="user", problem=refused))
    said = apiaccess.close(settings.fly_api, account)
    if said is not None:
        bus.publish(Notice(part="fly_api", notice=said))
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
            Notice(part="init", notice=f"the agent cannot reap orphans of sessions: {error}")
        )


async def _prepare_home(machine: Machine) -> None:
    """Prepare the volume's root and the home's links; a failure costs permanence, not SSH."""
    settings, account, bus = machine.current.value, machine.account, machine.bus
    if os.geteuid() != 0 or not os.path.isdir(settings.volume):
        return
    paths = settings.home_links
    try:
        volume.give_to(settings.volume, account.uid, account.gid)
        if paths:
            found = await home.link_all(account, settings.volume, paths, machine.children)
            homekeeper.tell(found, bus)
    except OSError as error:
        bus.publish(Notice(part="home", notice=f"{settings.volume} cannot be prepared: {error}"))
    homekeeper.note_unlinked(settings, account, bus)


def _session_env(machine: Machine) -> Mapping[str, str]:
    settings = machine.current.value
    try:
        image = image_names(machine.environ)
    except OSError as error:
        image = frozenset()
        notice = f"the image's ENV does not reach sessions: {error}"
        machine.bus.publish(Notice(part="image_env", notice=notice))
    found = session_environment(
        machine.environ, image, settings.session_env, settings.agents, machine.account
    )
    why = {"line breaks": found.unusable, "their size": found.too_large}
    refused = [f"{', '.join(names)}, because of {reason}" for reason, names in why.items() if names]
    if refused:
        notice = f"not in the sessions' environment: {'; '.join(refused)}"
        machine.bus.publish(Notice(part="session_env", notice=notice))
    return found.variables


async def _open_wall(machine: Machine, records: Records) -> "Wall | None":
    """Enforce SWARM_EGRESS before anybody can log in. Raises `StartError`."""
    settings, bus = machine.current.value, machine.bus
    from agent.egress.wall import EgressError, Wall, WallRecord

    wall = Wall(records.of(WallRecord, WallRecord), settings, machine.children, bus)
    try:
        if settings.egress == "open":
            await wall.remove()
            return None
        await wall.put_up()
    except EgressError as error:
        if records.find(Settings) == settings:
            notice = f"the previous rules stay in force: {error}"
            bus.publish(Notice(part="egress", notice=notice))
            return wall
        if settings.egress == "strict":
            raise StartError(str(error)) from error
        bus.publish(Trouble(part="egress", problem=f"not restricted: {error}"))
        return None
    bus.publish(EgressApplied(mode=wall.mode))
    return wall


def _policy(settings: Settings) -> Policy:
    return Policy(
        maxretry=settings.maxretry,
        findtime=settings.findtime,
        bantime=settings.bantime,
        bantime_max=settings.bantime_max,
        ipv6_prefix=settings.ipv6_prefix,
        ignore=settings.ignoreip,
        dry_run=settings.ban_dry_run,
    )


def _gate_record(settings: Settings, bus: Bus) -> GateRecord:
    """A gate with the bans and logins of earlier runs."""
    known = Known()
    jail = Jail(_policy(settings), is_own, known.spared)

    def replaced(reason: str, kept_as: str) -> None:
        bus.publish(StateReplaced(reason=reason, kept_as=kept_as))

    now = clock()
    clocks = banlist.Clocks(now)
    try:
        for ban in banlist.read(settings.volume, clocks, replaced):
            jail.restore(ban)
        known.restore(knownlist.read(settings.volume, clocks, replaced), now)
    except (OSError, volume.NotTrusted) as error:
        notice = f"bans and logins of earlier runs are not known: {settings.volume}: {error}"
        bus.publish(Notice(part="state", notice=notice))
    return GateRecord(jail, known)
