"""Checkpoints as one part of the agent: making, uploading, comparing and restoring them."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.bus import Bus
from agent.checkpoints.away import Away
from agent.checkpoints.desk import Desk
from agent.checkpoints.keeper import Keeper
from agent.checkpoints.undo import Undo
from agent.events import Event
from agent.init.children import Children
from agent.platform.account import Account
from agent.settings.current import Current

TURN = "coding.turn"
"""The event with which a coding agent begins a turn."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The parts, which share one repository."""

    keeper: Keeper
    away: Away
    undo: Undo
    desk: Desk
    turned: asyncio.Event
    """A coding agent began a turn."""

    @classmethod
    def make(
        cls,
        current: Current,
        account: Account,
        children: Children,
        environ: Mapping[str, str],
        active: Callable[[], float],
        bus: Bus,
    ) -> "Checkpoints":
        """Create the parts. The ledger is read when it is needed, so no record is handed over."""
        keeper = Keeper(current, account, children, environ, active, bus)
        away = Away(keeper)
        made = cls(keeper, away, Undo(keeper, away), Desk(), asyncio.Event())
        bus.subscribe(made.hear)
        return made

    def hear(self, event: Event) -> None:
        """A coding agent's turn begins: it may be the one that has to be undone."""
        if event.name == TURN:
            self.turned.set()

    async def run(self) -> None:
        """Run all parts until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.keeper.run())
            group.create_task(self.away.run())
            group.create_task(self.desk.run())
            group.create_task(self._before_turns())

    async def _before_turns(self) -> None:
        while True:
            await self.turned.wait()
            self.turned.clear()
            await self.keeper.before_turn()
