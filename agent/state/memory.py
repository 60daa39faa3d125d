"""Everything that outlives the machine in the state database: bans, sessions, time awake."""

import asyncio
from typing import TYPE_CHECKING

from agent.access.jail import Jail
from agent.access.sessions import Sessions
from agent.events import Bus
from agent.state import audit, bans, usage
from agent.state.audit import Audit
from agent.state.banlist import Clocks
from agent.state.bans import BanStore
from agent.state.database import Change, Database
from agent.state.usage import BEAT, Totals, Usage

if TYPE_CHECKING:
    from agent.handover import Handover

PATIENCE = 5.0
"""Seconds that the last writes may take: a disk may hang."""

SCHEMA = (bans.SCHEMA, bans.INDEX, audit.SCHEMA, *usage.SCHEMA)


class Memory:
    """Keeps it while `run` runs. `volume_path` is None where nothing can be kept safely."""

    def __init__(
        self,
        volume_path: str | None,
        jail: Jail,
        sessions: Sessions,
        began: float,
        bus: Bus,
        held: "Handover | None" = None,
    ) -> None:
        unwritten = () if held is None else held.parts.unwritten
        self._missed = () if held is None else held.missed
        self._database = Database(volume_path, SCHEMA, bus, unwritten)
        self._began = began
        self._bans = BanStore(self._database, volume_path, jail, bus)
        self.audit = Audit(self._database, bus)
        self.usage = Usage(self._database, lambda: len(sessions), bus)
        self.totals: asyncio.Future[Totals] = asyncio.get_running_loop().create_future()
        """What earlier lives had, once it was read."""

    def hold(self) -> "tuple[Change, ...]":
        """What could not be written, for the agent that this process becomes."""
        return self._database.hold()

    async def run(self, clocks: Clocks) -> None:
        """Keep what happened since the start and what happens, until cancelled."""
        try:
            await self._bans.begin(clocks)
            # Only the first time what happened before is told: it must not be counted twice.
            first = not self.totals.done()
            self.audit.begin(early=first)
            totals = await self.usage.begin(self._began, early=first)
            for event in self._missed:
                self.audit.hear(event)
                self.usage.hear(event)
            self._missed = ()
            if first:
                self.totals.set_result(totals)
            while True:
                await asyncio.sleep(BEAT)
                await self.usage.beat()
                self._bans.retry()
        finally:
            self._bans.close()
            self.audit.close()
            await self.usage.close()
            await self._database.flush(PATIENCE)
