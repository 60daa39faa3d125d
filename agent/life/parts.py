"""Parts that SSH does not depend on: each may crash, and restarts without touching SSH.

They are made once the client who woke the machine has been served: their imports take seconds to
read from a cold disk. `TABLE` lists the parts and when each starts.
"""

import asyncio
import importlib
import math
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING

from agent import words
from agent.access.gate import Gate
from agent.bus import Bus
from agent.clock import clock
from agent.events import Event, Notice, PartFailed
from agent.init.children import leave_signals
from agent.life.records import PartRecords, Records
from agent.machine import Machine
from agent.pace import doubled

if TYPE_CHECKING:
    from agent.services.supervisor import Supervisor

BANNER_FIRST = 0.05
"""Seconds for a client that is waiting already, before the first check for its banner."""

FIRST_LOOK_UP = 5.0
"""Seconds that services wait until the names they may connect to are looked up."""

QUIET = 1.0
"""Seconds to wait for a first connection; after that, nobody is assumed to wait."""

PATIENCE = 15.0
"""Seconds that a first connection may take before parts start all the same."""

FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
"""Seconds before a crashed part restarts; doubled at each crash."""

STABLE = 300.0
"""Seconds of running after which a crash counts as the first one again."""

Run = Callable[[], Awaitable[None]]


STATE = "state"
"""The part that stores what happened."""


class When(IntEnum):
    """The moment at which a part is made."""

    BANNER = 1
    """Once a client who was waiting has its banner."""
    SERVED = 2
    """Once the first connection was served."""
    QUIET = 3
    """Once nobody is likely to wait for a first login."""


@dataclass(slots=True)
class Missed:
    """Events that the database has not received."""

    events: list[Event] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Part:
    """One part: `make` prepares it, and returns the function that runs it until cancelled, or None.

    `modules` are imported in a thread before that. `at_once`: after a re-execution it is made
    before anything else happens in the event loop.
    """

    name: str
    when: When
    make: Callable[[Machine, Records], Run | None]
    modules: tuple[str, ...] = ()
    at_once: bool = False


def _host_name(machine: Machine, _: Records) -> None:
    from agent.platform.hostname import take_name

    take_name(machine.environ)


def _idle(machine: Machine, records: Records) -> None:
    # A few small modules, imported here: they greet the first login.
    from agent.idle.idle import IdleRecord, make
    from agent.platform.fly import FlyMachine

    settings = machine.current.value
    machine.fly = FlyMachine.here(machine.environ, settings.fly_api)
    machine.idle = make(
        records.of(IdleRecord, lambda: IdleRecord.begin(settings.volume, machine.bus)),
        machine.current,
        machine.account,
        machine.children,
        machine.sessions,
        machine.keyring,
        machine.gate,
        machine.fly,
        machine.stop,
        machine.bus,
        partial(_checkpoint_before_sleep, machine),
        partial(_restic_ran, machine),
    )


async def _checkpoint_before_sleep(machine: Machine, patience: float) -> None:
    if hasattr(machine, "checkpoints"):  # not while the machine starts
        await machine.checkpoints.keeper.before_sleep(patience)


def _restic_ran(machine: Machine) -> float:
    return machine.checkpoints.keeper.restic_ran if hasattr(machine, "checkpoints") else -math.inf


def _egress(machine: Machine, _: Records) -> Run | None:
    return None if machine.wall is None else machine.wall.run


def _services(machine: Machine, records: Records) -> Run:
    from agent.services.runner import Surroundings
    from agent.services.supervisor import ServicesRecord, Supervisor

    around = Surroundings(
        machine.children,
        machine.environ,
        machine.session_env,
        machine.account.name,
        machine.current.value.run_dir,
        machine.bus,
    )
    record = records.of(ServicesRecord, ServicesRecord)
    supervisor = Supervisor(record, around, machine.current, machine.account, machine.stop)
    machine.supervisor = supervisor

    async def run() -> None:
        if machine.wall is not None:
            await _wait_at_most(machine.wall.looked_up, FIRST_LOOK_UP)
        await supervisor.follow()

    return run


def _log(machine: Machine, _: Records) -> None:
    machine.log.start()


def _watch(machine: Machine, _: Records) -> Run:
    return machine.idle.watch.run


def _checkpoints(machine: Machine, _: Records) -> Run:
    from agent.checkpoints.part import Checkpoints

    def active() -> float:
        latest = machine.idle.watch.seen.latest
        return -math.inf if latest.signal == "start" else latest.at

    machine.checkpoints = Checkpoints.make(
        machine.current,
        machine.account,
        machine.children,
        machine.environ,
        active,
        machine.bus,
    )
    return machine.checkpoints.run


def _memory(machine: Machine, records: Records) -> Run:
    from agent.state.banlist import Clocks
    from agent.state.memory import Memory, MemoryRecord

    memory = machine.memory = Memory(
        records.of(MemoryRecord, MemoryRecord),
        records.of(Missed, Missed).events,
        _safe_volume(machine.current.value.volume, machine.bus),
        machine.gate.jail,
        machine.sessions,
        machine.began,
        machine.bus,
    )

    # Until the database is read, the budget is the one that the previous run left.
    memory.totals.add_done_callback(
        lambda _: machine.idle.budget.count_with(lambda: memory.usage.this_month)
    )

    async def run() -> None:
        await memory.run(Clocks(clock()))

    return run


def _known(machine: Machine, _: Records) -> Run:
    from agent.state.knownlist import KnownKeeper

    return KnownKeeper(machine.gate.known, machine.current.value.volume, machine.bus).run


def _crew(machine: Machine, records: Records) -> Run:
    from agent.crew.keeper import Crew, greeting
    from agent.crew.states import CrewRecord

    idle, page = machine.idle, machine.idle.crew_page
    record = records.of(CrewRecord, CrewRecord)
    crew = machine.crew = Crew(record, machine.current, machine.account, page, machine.bus)
    idle.leases.derived = crew.leases
    idle.greeting.more.append(lambda: greeting(crew, clock()))
    return crew.run


def _notifier(machine: Machine, records: Records) -> Run:
    from agent.notify import notifier

    settings = machine.current.value
    page = notifier.page(settings.volume, machine.bus)
    machine.notifier = notifier.Notifier(
        records.of(notifier.NotifyRecord, lambda: notifier.read(page)),
        notifier.addresses_in(machine.environ),
        notifier.machine_name(machine.environ),
        machine.current,
        machine.children,
        page,
        lambda: notifier.Readings.of(machine.idle.budget.used, settings.volume),
        None if machine.wall is None else machine.wall.allow,
        machine.bus,
    )
    machine.idle.sleeper.farewells.append(machine.notifier.farewell)
    return machine.notifier.run


def _lag(machine: Machine, _: Records) -> Run:
    from agent.observe.lag import Lag

    machine.lag = Lag()
    return machine.lag.run


def _control(machine: Machine, _: Records) -> Run:
    from agent.observe.control import Control

    return Control(machine, machine.bus).serve


def _http(machine: Machine, _: Records) -> Run | None:
    from agent.observe.http import Http
    from agent.observe.metrics import Metrics

    endpoint = machine.current.value.http_listen
    if endpoint is None:
        return None
    metrics = Metrics(machine)
    machine.bus.subscribe(metrics.hear, early=True)
    # The totals of earlier runs are known once the database is read, and added once.
    machine.memory.totals.add_done_callback(
        lambda totals: metrics.resume(totals.result(), machine.began)
    )
    return Http(endpoint, machine, metrics, machine.bus).serve


def _files(machine: Machine, _: Records) -> Run:
    from agent.follow import Files

    return Files(
        machine.current,
        machine.environ,
        machine.keyring,
        machine.supervisor,
        machine.home,
        machine.bus,
    ).follow


def _home_keys(machine: Machine, _: Records) -> Run:
    from agent.access.homekeys import HomeKeys

    return HomeKeys(machine.keyring, machine.account, machine.children, machine.bus).run


def _home(machine: Machine, _: Records) -> Run:
    from agent.platform.homekeeper import HomeKeeper

    machine.home = HomeKeeper(machine.current.value, machine.account, machine.children, machine.bus)
    return machine.home.run


TABLE = (
    Part("host name", When.BANNER, _host_name),
    Part("idle", When.BANNER, _idle, at_once=True),
    Part("egress", When.SERVED, _egress),
    Part("services", When.SERVED, _services, at_once=True),
    Part("log", When.QUIET, _log),
    Part("watch", When.QUIET, _watch),
    Part("checkpoints", When.QUIET, _checkpoints, ("agent.checkpoints.part",)),
    Part(STATE, When.QUIET, _memory, ("agent.state.memory",)),
    Part("known networks", When.QUIET, _known),
    Part("coding agents", When.QUIET, _crew, ("agent.crew.keeper",)),
    Part("messages", When.QUIET, _notifier, ("agent.notify.notifier",)),
    Part("lag", When.QUIET, _lag),
    Part("control socket", When.QUIET, _control, ("agent.observe.control",)),
    Part("http", When.QUIET, _http, ("agent.observe.http", "agent.observe.metrics")),
    Part("keys in the home", When.QUIET, _home_keys),
    Part("home", When.QUIET, _home),
    Part("files", When.QUIET, _files, ("agent.follow", "agent.life.reexec")),
)
"""In the order in which they are made. The last one also imports the modules for a re-execution:
later their files may have changed or be unreachable."""


class Parts:
    """Makes the parts of one run, and keeps them running."""

    def __init__(self, machine: Machine, records: Records) -> None:
        self._machine = machine
        self._records = records.of(PartRecords, PartRecords)
        self._runs: dict[str, Run | None] = {}
        """By the part's name, once it is made."""

    def make_at_once(self) -> None:
        """Make the parts with processes or sessions: after a re-execution they must not wait."""
        for part in TABLE:
            if part.at_once:
                try:
                    self._make(part)
                except Exception as error:
                    # It starts empty later: the loss of its state must not end the sessions.
                    problem = words.error(error)
                    self._machine.bus.publish(
                        PartFailed(part=part.name, problem=problem, retry_in=0.0)
                    )
                    self._records.of(part.name).clear()

    @property
    def missed(self) -> list[Event]:
        """Events published after the parts have stopped; the next agent stores them."""
        return self._records.of(STATE).of(Missed, Missed).events

    @property
    def supervisor(self) -> "Supervisor | None":
        """The services, if they are made."""
        return self._machine.supervisor if "services" in self._runs else None

    async def run(self) -> None:
        """Make every part in its turn, and keep it running until cancelled."""
        gate, bus = self._machine.gate, self._machine.bus
        await _wait_for_banner(gate)
        _prepare_threads()
        when = When.BANNER
        async with asyncio.TaskGroup() as group:
            for part in TABLE:
                if part.when > when:
                    when = part.when
                    await _wait_for_moment(when, gate)
                for module in part.modules:
                    await asyncio.to_thread(importlib.import_module, module)
                group.create_task(keep_running(part.name, partial(self._make_and_run, part), bus))
                await asyncio.sleep(0)  # it is made before the next one

    async def finish(self, reason: str) -> None:
        """Write to the volume how this run ended and what changed in the home; sync the disks."""
        from agent.life.stop import take_down
        from agent.platform import homekeeper

        machine = self._machine
        await homekeeper.bring_back(
            machine.current.value, machine.account, machine.children, machine.bus
        )
        if machine.wall is not None:
            await take_down(machine.wall, machine.bus)
        if "idle" in self._runs:
            from agent.state.runs import sync_disks

            await machine.idle.journal.end(reason)
            await sync_disks()

    async def _make_and_run(self, part: Part) -> None:
        """Make a part, unless it is made already, and run it."""
        run = self._make(part)
        if run is not None:
            await run()

    def _make(self, part: Part) -> Run | None:
        if part.name not in self._runs:
            self._runs[part.name] = part.make(self._machine, self._records.of(part.name))
        return self._runs[part.name]


def retry_delay(failures: int) -> float:
    """Seconds to wait after the `failures`-th crash in a row."""
    return doubled(FIRST_DELAY, failures - 1, LONGEST_DELAY)


async def keep_running(name: str, part: Run, bus: Bus) -> None:
    """Run a part until it returns; after a crash, which is reported, restart it."""
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began = loop.time()
        try:
            await part()
        except Exception as error:
            failures = 1 if loop.time() - began > STABLE else failures + 1
            delay = retry_delay(failures)
            bus.publish(PartFailed(part=name, problem=words.error(error), retry_in=delay))
        else:
            return
        await asyncio.sleep(delay)


def _prepare_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(thread_name_prefix="asyncio", initializer=leave_signals)
    asyncio.get_running_loop().set_default_executor(executor)


def _safe_volume(path: str, bus: Bus) -> str | None:
    """The volume, if SQLite can safely open files by name there: nobody can swap them."""
    from agent.platform import volume

    try:
        folder = volume.replaceable_in(path)
    except OSError as error:
        reason = f"{path}: {error}"
    else:
        if folder is None:
            return path
        root = os.geteuid() == 0
        remedy = "chown root, and chmod 1777 if they must write" if root else "chmod go-w"
        reason = f"others may replace folders in {folder}: {remedy}"
    notice = f"bans, sessions and time awake are kept for this run only: {reason}"
    bus.publish(Notice(part="state", notice=notice))
    return None


async def _wait_for_banner(gate: Gate) -> None:
    """Wait until a waiting client has its banner: from a cold disk it takes a second."""
    end = clock() + PATIENCE
    await asyncio.sleep(BANNER_FIRST)
    while gate.awaits_banner and clock() < end:  # noqa: ASYNC110  # only the kernel knows
        await asyncio.sleep(BANNER_FIRST / 2)


async def _wait_for_moment(when: When, gate: Gate) -> None:
    if when is When.QUIET:
        await asyncio.sleep(QUIET)
    if gate.accepted:
        await _wait_at_most(gate.served, PATIENCE)


async def _wait_at_most(event: asyncio.Event, patience: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await event.wait()
