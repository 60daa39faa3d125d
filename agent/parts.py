"""Parts that SSH does not need: each may crash and is started again; none takes SSH with it.

They are imported and started once the client who woke the machine has been served, in threads: what
they import takes seconds to read from a cold disk.
"""

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from agent.access.gate import Gate, clock
from agent.access.keys import Keys
from agent.access.sessions import Sessions
from agent.events import Bus, Notice, PartFailed
from agent.health import Health
from agent.init.children import Children
from agent.log import Log
from agent.platform import volume
from agent.platform.account import Account
from agent.settings.current import Current
from agent.state import banlist
from agent.stop import Stop

if TYPE_CHECKING:
    from agent.idle.assemble import Idle

BANNER_FIRST = 0.05
"""Seconds that belong to the banner of a client who is waiting already."""

QUIET = 1.0
"""Seconds without any connection after which the parts are started: nobody is waiting."""

PATIENCE = 15.0
"""Seconds a first connection may take before the parts are started beside it."""

FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
"""Seconds before a crashed part is started again; doubled each time it crashes."""

STABLE = 300.0
"""Seconds of life after which a crash counts as the first again."""


@dataclass(slots=True)
class Parts:
    """Runs the parts of one life; what they are given belongs to the spine."""

    current: Current
    environ: Mapping[str, str]
    account: Account
    children: Children
    sessions: Sessions
    keys: Keys
    gate: Gate
    health: Health
    stop: Stop
    bus: Bus
    idle: "Idle | None" = None

    async def run(self, log: Log) -> None:
        """Start everything that can wait, and keep it running until cancelled."""
        await asyncio.sleep(BANNER_FIRST)
        idle = self.idle = self.idle or self._assemble_idle()
        await _first_client_served(self.gate)
        log.start()
        async with asyncio.TaskGroup() as group:
            if _can_keep_state(self.current.value.volume, self.bus):
                group.create_task(keep_running("state", self._state, self.bus))
            group.create_task(keep_running("idle", idle.watch.run, self.bus))
            group.create_task(keep_running("settings", self._follow_settings, self.bus))
            control = partial(self._control, idle)
            group.create_task(keep_running("control socket", control, self.bus))

    async def last_word(self, reason: str) -> None:
        """Keep on the volume how this life ended, and have everything written to the disks."""
        if self.idle is not None:
            from agent.state.life import sync_disks

            await self.idle.life.end(reason)
            await sync_disks()

    def _assemble_idle(self) -> "Idle":
        # A few small modules: the greeting of the first login is theirs.
        from agent.idle.assemble import assemble

        return assemble(
            self.current,
            self.account,
            self.children,
            self.sessions,
            self.gate,
            self.environ,
            self.stop,
            self.bus,
        )

    async def _follow_settings(self) -> None:
        module = await asyncio.to_thread(importlib.import_module, "agent.settings.follow")
        await module.follow(self.current, self.environ, self.bus)

    async def _state(self) -> None:
        module = await asyncio.to_thread(importlib.import_module, "agent.state.bans")
        store = module.BanStore(self.current.value.volume, self.gate.jail, self.bus)
        try:
            await store.begin(banlist.Clocks(clock()))
            await asyncio.get_running_loop().create_future()
        finally:
            store.close()

    async def _control(self, idle: "Idle") -> None:
        module = await asyncio.to_thread(importlib.import_module, "agent.observe.control")
        control = module.Control(
            self.current, self.account, self.sessions, self.keys, self.gate, self.health, idle
        )
        await control.serve()


def retry_delay(failures: int) -> float:
    """Seconds to wait after the `failures`-th crash in a row."""
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2 ** (failures - 1)))


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


def _can_keep_state(path: str, bus: Bus) -> bool:
    """SQLite opens its files by name: nobody else may be able to put others in their place."""
    reason = "others may replace folders in it: chown root, and chmod 1777 if they must write"
    try:
        if volume.is_safe_by_name(path):
            return True
    except OSError as error:
        reason = str(error)
    bus.publish(Notice(part="state", notice=f"bans last for this life only: {path}: {reason}"))
    return False


async def _first_client_served(gate: Gate) -> None:
    await asyncio.sleep(QUIET)
    if gate.accepted:
        try:
            async with asyncio.timeout(PATIENCE):
                await gate.served.wait()
        except TimeoutError:
            return
