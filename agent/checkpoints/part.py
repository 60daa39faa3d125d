"""Checkpoints as a part of the agent: what makes, uploads, compares and restores them."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.bus import Bus
from agent.checkpoints.away import Away
from agent.checkpoints.desk import Desk
from agent.checkpoints.keeper import Keeper
from agent.checkpoints.undo import Undo
from agent.init.children import Children
from agent.platform.account import Account
from agent.settings.current import Current


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The parts, which share one repository."""

    keeper: Keeper
    away: Away
    undo: Undo
    desk: Desk

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
        """What earlier runs made is read when it is needed: no record is handed over."""
        keeper = Keeper(current, account, children, environ, active, bus)
        away = Away(keeper)
        return cls(keeper, away, Undo(keeper, away), Desk())

    async def run(self) -> None:
        """Run all of it until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.keeper.run())
            group.create_task(self.away.run())
            group.create_task(self.desk.run())
