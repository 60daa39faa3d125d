"""The idle part, put together from what the spine has made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.access.gate import Gate
from agent.access.keyring import Keyring
from agent.access.sessions import Sessions
from agent.events import Bus
from agent.idle.budget import Budget
from agent.idle.greeting import Greeting
from agent.idle.leasekeeper import LeaseKeeper
from agent.idle.signals import processes
from agent.idle.signals.checks import Checks
from agent.idle.signals.disk import DiskWrites, disk_of
from agent.idle.signals.network import NetworkTraffic
from agent.idle.signals.sign import Signal
from agent.idle.signals.ssh import SshTraffic
from agent.idle.signals.terminals import Terminals
from agent.idle.sleep import Sleeper
from agent.idle.watch import Watch
from agent.init.children import Children
from agent.platform.account import Account
from agent.platform.fly import FlyMachine
from agent.settings import Settings
from agent.settings.current import Current
from agent.state.life import LifeRecord
from agent.stop import Stop

if TYPE_CHECKING:
    from agent.handover import HeldIdle


@dataclass(frozen=True, slots=True)
class Idle:
    """What others may ask: whether the machine sleeps, who holds it awake, how it lived."""

    watch: Watch
    leases: LeaseKeeper
    life: LifeRecord
    budget: Budget

    def hold(self) -> "HeldIdle":
        """What it knows, for the agent that this process becomes."""
        return self.watch.hold(self.life, self.leases.hold())


def assemble(
    current: Current,
    account: Account,
    children: Children,
    sessions: Sessions,
    keyring: Keyring,
    gate: Gate,
    environ: Mapping[str, str],
    stop: Stop,
    bus: Bus,
    held: "HeldIdle | None" = None,
) -> Idle:
    """Make the idle part; `watch.run` is what runs it."""
    settings = current.value
    life = LifeRecord(settings.volume, bus, held)
    leases = LeaseKeeper(settings.volume, bus, None if held is None else held.leases)
    fly = FlyMachine.here(environ, settings.fly_api)
    sleeper = Sleeper(current, account, children, sessions, gate, fly, life, stop, bus)

    def signals() -> list[Signal]:
        return _signals(current.value, sessions, leases, children, account)

    budget = Budget(current, life.before, None if held is None else held.month_awake)
    life.month_awake = lambda: budget.awake
    watch = Watch(current, gate, lambda: len(sessions) > 0, budget, sleeper, signals, bus, held)
    Greeting(current, account, sessions, watch, life.before, budget, keyring, bus)
    return Idle(watch, leases, life, budget)


def _signals(
    settings: Settings,
    sessions: Sessions,
    leases: LeaseKeeper,
    children: Children,
    account: Account,
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
            else DiskWrites(disk, settings.idle_writes)
        )
    if settings.idle_check is not None:
        found.append(Checks(children, account, settings.idle_check))
    return found


def _own_ports(settings: Settings) -> frozenset[int]:
    places = (settings.listen, settings.private_listen, settings.http_listen)
    return frozenset(place.port for place in places if place is not None)
