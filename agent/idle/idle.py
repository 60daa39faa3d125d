"""Assembles the idle part."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.access.gate import Gate
from agent.access.keyring import Keyring
from agent.access.sessions import Sessions
from agent.bus import Bus
from agent.clock import clock
from agent.crew import page as crewpage
from agent.crew.page import CrewPage, Line
from agent.idle import leasekeeper
from agent.idle.budget import Budget, BudgetRecord, month_awake
from agent.idle.greeting import Greeting
from agent.idle.leasekeeper import LeaseKeeper
from agent.idle.leases import Leases
from agent.idle.signals import processes
from agent.idle.signals.checks import Checks
from agent.idle.signals.disk import DiskWrites, disk_of
from agent.idle.signals.network import NetworkTraffic
from agent.idle.signals.sign import Signal
from agent.idle.signals.ssh import SshTraffic
from agent.idle.signals.terminals import Terminals
from agent.idle.sleep import Sleeper
from agent.idle.watch import Watch, WatchRecord
from agent.init.children import Children
from agent.life.ending import Stop
from agent.platform.account import Account
from agent.platform.fly import FlyMachine
from agent.settings import Settings
from agent.settings.current import Current
from agent.state import runs
from agent.state.runs import RunJournal, RunRecord


@dataclass(frozen=True, slots=True)
class IdleRecord:
    """The state of the idle part in this run."""

    run: RunRecord
    watch: WatchRecord
    leases: Leases
    budget: BudgetRecord
    cut_off: tuple[Line, ...]
    """Coding agents that the end of the previous run cut off."""

    @classmethod
    def begin(cls, volume_path: str, bus: Bus) -> "IdleRecord":
        """The state of a run that begins now, with data of earlier runs from the volume."""
        run = runs.begin(runs.page(volume_path, bus))
        leases = leasekeeper.read(leasekeeper.page(volume_path, bus))
        cut_off = crewpage.read(crewpage.page(volume_path, bus))
        budget = BudgetRecord(month_awake(run.before))
        return cls(run, WatchRecord.begin(clock()), leases, budget, cut_off)


@dataclass(frozen=True, slots=True)
class Idle:
    """The parts that decide about sleep, and the memory of this run."""

    watch: Watch
    leases: LeaseKeeper
    greeting: Greeting
    sleeper: Sleeper
    crew_page: CrewPage
    journal: RunJournal
    budget: Budget


def make(
    record: IdleRecord,
    current: Current,
    account: Account,
    children: Children,
    sessions: Sessions,
    keyring: Keyring,
    gate: Gate,
    fly: FlyMachine | None,
    stop: Stop,
    bus: Bus,
    checkpoint: Callable[[float], Awaitable[None]],
    restic_ran: Callable[[], float],
) -> Idle:
    """Make the idle part, and subscribe it to events; `watch.run` runs it."""
    volume = current.value.volume
    budget = Budget(record.budget, current)
    journal = RunJournal(runs.page(volume, bus), record.run, lambda: budget.awake)
    leases = LeaseKeeper(leasekeeper.page(volume, bus), record.leases, bus)
    sleeper = Sleeper(
        current, account, children, sessions, gate, fly, journal, stop, bus, checkpoint
    )

    def signals() -> list[Signal]:
        return _signals(current.value, sessions, leases, children, account, restic_ran)

    watch = Watch(
        current, gate, lambda: len(sessions) > 0, budget, sleeper, signals, bus, record.watch
    )
    bus.subscribe(watch.hear, early=True)
    greeting = Greeting(current, account, sessions, watch, record.run.before, budget, keyring)
    bus.subscribe(greeting.hear, early=True)
    # The first login may be greeted before the crew exists.
    crew_page = CrewPage(crewpage.page(volume, bus), record.cut_off)
    greeting.more.append(crew_page.cut_off)
    return Idle(watch, leases, greeting, sleeper, crew_page, journal, budget)


def _signals(
    settings: Settings,
    sessions: Sessions,
    leases: LeaseKeeper,
    children: Children,
    account: Account,
    restic_ran: Callable[[], float],
) -> list[Signal]:
    found: list[Signal] = [leases]
    ignored = settings.idle_ignore
    if settings.idle_terminal:
        found.append(Terminals(sessions))
    if settings.idle_ssh is not None:
        found.append(SshTraffic(sessions, settings.idle_ssh))
    if settings.idle_cpu is not None:
        found.append(processes.cpu(settings.idle_cpu, ignored))
    if settings.idle_network is not None:
        found.append(NetworkTraffic(settings.idle_network, _own_ports(settings), ignored))
    if settings.idle_writes is not None:
        disk = disk_of(settings.volume)
        found.append(
            processes.writes(settings.idle_writes, ignored)
            if disk is None
            else DiskWrites(disk, settings.idle_writes, restic_ran, ignored)
        )
    if settings.idle_check is not None:
        found.append(Checks(children, account, settings.idle_check))
    return found


def _own_ports(settings: Settings) -> frozenset[int]:
    places = (settings.listen, settings.private_listen, settings.http_listen)
    return frozenset(place.port for place in places if place is not None)
