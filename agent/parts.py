"""Parts that SSH does not need: each may crash and is started again; none takes SSH with it.

They are imported and started once the client who woke the machine has been served: what they import
takes seconds to read from a cold disk.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from agent.access.gate import Gate
from agent.access.keyring import Keyring
from agent.access.sessions import Sessions
from agent.events import Bus, Notice, PartFailed
from agent.health import Health, Reexecutions
from agent.init.children import Children, leave_signals
from agent.log import Log
from agent.platform.account import Account
from agent.settings import Settings
from agent.settings.current import Current
from agent.stop import Stop

if TYPE_CHECKING:
    from agent.egress.wall import Wall
    from agent.handover import Handover, HeldIdle, HeldParts, HeldServices
    from agent.idle.assemble import Idle
    from agent.observe.parts import ObserveParts
    from agent.services.supervisor import Supervisor

BANNER_FIRST = 0.05
"""Seconds that belong to the banner of a client who is waiting already."""

FIRST_LOOK_UP = 5.0
"""Seconds that services wait for the addresses of the names they may connect to."""

QUIET = 1.0
"""Seconds without any connection after which the parts are started: nobody is waiting."""

PATIENCE = 15.0
"""Seconds a first connection may take before the parts are started beside it."""

FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
"""Seconds before a crashed part is started again; doubled each time it crashes."""

STABLE = 300.0
"""Seconds of life after which a crash counts as the first again."""


@dataclass(frozen=True, slots=True)
class Spine:
    """What the boot has made and the parts are given. `began` is monotonic time."""

    current: Current
    environ: Mapping[str, str]
    session_env: Mapping[str, str]
    account: Account
    children: Children
    sessions: Sessions
    keyring: Keyring
    gate: Gate
    wall: "Wall | None"
    health: Health
    past: Reexecutions
    stop: Stop
    bus: Bus
    log: Log
    began: float


class Parts:
    """Runs the parts of one life."""

    def __init__(self, spine: Spine) -> None:
        self._spine = spine
        self._idle: Idle | None = None
        self._observe: ObserveParts | None = None
        self._supervisor: Supervisor | None = None
        self._held: Handover | None = None

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self._spine.current.value

    def take_over(self, held: "Handover") -> None:
        """Go on with what this process had before it re-executed in place."""
        self._held = held
        try:
            if held.parts.idle is not None:
                self._idle = _assemble_idle(self._spine, held.parts.idle)
            if held.parts.services is not None:
                self._supervisor = _make_supervisor(self._spine, held.parts.services)
        except Exception as error:
            # They begin anew: what they knew is no reason to end the sessions.
            problem = f"{type(error).__name__}: {error}"
            self._spine.bus.publish(PartFailed(part="parts", problem=problem, retry_in=0.0))

    def hold(self) -> "HeldParts":
        """What the parts know, for the agent that this process becomes."""
        from agent.handover import HeldParts

        before = () if self._held is None else self._held.parts.unwritten
        return HeldParts(
            idle=None if self._idle is None else self._idle.hold(),
            services=None if self._supervisor is None else self._supervisor.hold(),
            unwritten=before if self._observe is None else self._observe.hold(),
        )

    async def run(self) -> None:
        """Start everything that can wait, and keep it running until cancelled."""
        await asyncio.sleep(BANNER_FIRST)
        spine = self._spine
        _prepare_threads()
        idle = self._idle = self._idle or _assemble_idle(spine)
        async with asyncio.TaskGroup() as group:
            if spine.gate.accepted:
                await _served(spine.gate)
            if spine.wall is not None:
                group.create_task(keep_running("egress", spine.wall.run, spine.bus))
                await _waited(spine.wall.looked_up, FIRST_LOOK_UP)
            supervisor = self._supervisor = self._supervisor or _make_supervisor(spine)
            group.create_task(keep_running("services", supervisor.follow, spine.bus))
            await _quiet(spine.gate)
            spine.log.start()
            group.create_task(keep_running("idle", idle.watch.run, spine.bus))
            observe = partial(self._run_observe, idle, supervisor)
            group.create_task(keep_running("observe", observe, spine.bus))

    async def stop_services(self, deadline: float) -> None:
        """Stop every service in reverse order, by `deadline` (event-loop time)."""
        if self._supervisor is not None:
            await self._supervisor.stop_all(deadline)

    async def last_word(self, reason: str) -> None:
        """Keep on the volume how this life ended and what the home has new; have it all written."""
        from agent.platform import homekeeper

        spine = self._spine
        await homekeeper.bring_back(spine.current.value, spine.account, spine.children, spine.bus)
        if self._spine.wall is not None:
            await _take_down(self._spine.wall, self._spine.bus)
        if self._idle is not None:
            from agent.state.life import sync_disks

            await self._idle.life.end(reason)
            await sync_disks()

    async def _run_observe(self, idle: "Idle", supervisor: "Supervisor") -> None:
        make = await asyncio.to_thread(_import_observe)
        self._observe = self._observe or make(self._spine, idle, supervisor, self._held)
        await self._observe.run()


def _prepare_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(thread_name_prefix="asyncio", initializer=leave_signals)
    asyncio.get_running_loop().set_default_executor(executor)


async def _take_down(wall: "Wall", bus: Bus) -> None:
    # Nothing runs any more, and where the network is the host's the rules must not stay.
    from agent.egress.wall import EgressError

    try:
        await wall.remove()
    except EgressError as error:
        bus.publish(Notice(part="egress", notice=str(error)))


def _assemble_idle(spine: Spine, held: "HeldIdle | None" = None) -> "Idle":
    # A few small modules, in place: the greeting of the first login is theirs.
    from agent.idle.assemble import assemble

    return assemble(
        spine.current,
        spine.account,
        spine.children,
        spine.sessions,
        spine.keyring,
        spine.gate,
        spine.environ,
        spine.stop,
        spine.bus,
        held,
    )


def _make_supervisor(spine: Spine, held: "HeldServices | None" = None) -> "Supervisor":
    from agent.services.runner import Surroundings
    from agent.services.supervisor import Supervisor

    run_dir = spine.current.value.run_dir
    around = Surroundings(
        spine.children, spine.environ, spine.session_env, spine.account.name, run_dir, spine.bus
    )
    return Supervisor(around, spine.current, spine.account, spine.stop, held)


def _import_observe() -> "type[ObserveParts]":
    # Here, and not when it is needed: then the files may be others, or out of reach.
    import agent.handover  # noqa: F401
    from agent.observe.parts import ObserveParts

    return ObserveParts


def retry_delay(failures: int) -> float:
    """Seconds to wait after the `failures`-th crash in a row."""
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16))


async def keep_running(name: str, part: Callable[[], Awaitable[None]], bus: Bus) -> None:
    """Run a part for ever; a crash is told and the part started again."""
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began = loop.time()
        try:
            await part()
        except Exception as error:
            failures = 1 if loop.time() - began > STABLE else failures + 1
            delay = retry_delay(failures)
            bus.publish(
                PartFailed(part=name, problem=f"{type(error).__name__}: {error}", retry_in=delay)
            )
        else:
            return
        await asyncio.sleep(delay)


async def _quiet(gate: Gate) -> None:
    """Wait until nobody is likely to wait for the first login."""
    await asyncio.sleep(QUIET)
    if gate.accepted:
        await _served(gate)


async def _served(gate: Gate) -> None:
    await _waited(gate.served, PATIENCE)


async def _waited(event: asyncio.Event, patience: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await event.wait()
