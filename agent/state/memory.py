"""Everything that outlives the machine in the state database: bans, sessions, coding agents,
time awake."""

import asyncio
from dataclasses import dataclass

from agent.access.jail import Jail
from agent.access.sessions import Sessions
from agent.bus import Bus
from agent.events import Event
from agent.state import audit, bans, crewlog, usage
from agent.state.audit import Audit
from agent.state.banlist import Clocks
from agent.state.bans import BanStore
from agent.state.crewlog import CrewLog
from agent.state.database import Change, Database
from agent.state.usage import BEAT, Totals, Usage

PATIENCE = 5.0
"""Seconds that the last writes may take: a disk may hang."""

SCHEMA = (bans.SCHEMA, bans.INDEX, audit.SCHEMA, crewlog.SCHEMA, *usage.SCHEMA)


@dataclass(slots=True)
class MemoryRecord:
    """Changes that could not be written until `run` ended."""

    unwritten: tuple[Change, ...] = ()


class Memory:
    """Stores it while `run` runs. `volume_path` is None if nothing can be stored safely.

    Events in `missed` are stored as well, and then removed from the list.
    """

    def __init__(
        self,
        record: MemoryRecord,
        missed: list[Event],
        volume_path: str | None,
        jail: Jail,
        sessions: Sessions,
        began: float,
        bus: Bus,
    ) -> None:
        self._record = record
        self._missed = missed
        self._database = Database(volume_path, SCHEMA, bus, record.unwritten)
        self._began = began
        self._bans = BanStore(self._database, volume_path, jail, bus)
        self.audit = Audit(self._database, bus)
        self.crew = CrewLog(self._database, bus)
        self.usage = Usage(self._database, lambda: len(sessions), bus)
        self.totals: asyncio.Future[Totals] = asyncio.get_running_loop().create_future()
        """The totals of earlier runs, once they are read."""

    async def run(self, clocks: Clocks) -> None:
        """Store events since the start and new ones, until cancelled."""
        try:
            await self._bans.begin(clocks)
            # Past events are delivered only the first time: they must not be counted twice.
            first = not self.totals.done()
            self.audit.begin(early=first)
            self.crew.begin(early=first)
            totals = await self.usage.begin(self._began, early=first)
            for event in self._missed:
                self.audit.hear(event)
                self.crew.hear(event)
                self.usage.hear(event)
            self._missed.clear()
            if first:
                self.totals.set_result(totals)
            while True:
                await asyncio.sleep(BEAT)
                await self.usage.beat()
                self._bans.retry()
        finally:
            self._bans.close()
            self.audit.close()
            self.crew.close()
            await self.usage.close()
            await self._database.flush(PATIENCE)
            self._record.unwritten = self._database.unwritten()
