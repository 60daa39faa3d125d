"""Checkpoints as a part of the agent: what makes, uploads, compares and restores them."""

import asyncio
from dataclasses import dataclass

from agent.checkpoints.away import Away
from agent.checkpoints.desk import Desk
from agent.checkpoints.keeper import Keeper
from agent.checkpoints.undo import Undo


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The parts, which share one repository."""

    keeper: Keeper
    away: Away
    undo: Undo
    desk: Desk

    @classmethod
    def around(cls, keeper: Keeper) -> "Checkpoints":
        """Everything that works with what the keeper has."""
        away = Away(keeper)
        return cls(keeper, away, Undo(keeper, away), Desk())

    async def run(self) -> None:
        """Run all of it until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.keeper.run())
            group.create_task(self.away.run())
            group.create_task(self.desk.run())
