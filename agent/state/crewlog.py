"""The history of coding agents: every change of their states, kept in the state database."""

import sqlite3
from dataclasses import dataclass

from agent.bus import Bus
from agent.events import CodingAgentChanged, Event
from agent.state.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS coding (
    at REAL NOT NULL,      -- Unix time
    agent TEXT NOT NULL,
    tool TEXT NOT NULL,
    folder TEXT NOT NULL,
    state TEXT NOT NULL,
    need TEXT NOT NULL,
    because TEXT NOT NULL,
    previous TEXT NOT NULL,
    seconds REAL NOT NULL  -- in the previous state
) STRICT
"""

LONGEST = 10_000
"""How many changes are kept, the latest ones."""

MOST_A_MINUTE = 120
"""More changes a minute are a flood, not work of coding agents; the rest of them is dropped."""

_KEEP = "INSERT INTO coding VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FORGET = "DELETE FROM coding WHERE rowid <= (SELECT max(rowid) FROM coding) - ?"
_SINCE = "SELECT * FROM coding WHERE at >= ? ORDER BY rowid DESC LIMIT ?"


@dataclass(frozen=True, slots=True)
class CrewLogEntry:
    """A change; `at` is Unix time, `seconds` how long the previous state lasted."""

    at: float
    agent: str
    tool: str
    folder: str
    state: str
    need: str
    because: str
    previous: str
    seconds: float


class CrewLog:
    """Keeps changes from `begin` until `close`."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self._minute = 0.0
        self._kept = 0

    def begin(self, *, early: bool) -> None:
        """Record events from now on; with `early`, also those since the start."""
        self._bus.subscribe(self.hear, early=early)

    def close(self) -> None:
        """Stop recording."""
        self._bus.unsubscribe(self.hear)

    async def since(self, at: float, most: int = LONGEST) -> list[CrewLogEntry]:
        """The changes at `at` (Unix time) or later, the latest first."""

        def work(database: sqlite3.Connection) -> list[CrewLogEntry]:
            rows = database.execute(_SINCE, (at, most)).fetchall()
            return [CrewLogEntry(*row) for row in rows]

        return await self._database.read(work) or []

    def hear(self, event: Event) -> None:
        """Record one event."""
        if not isinstance(event, CodingAgentChanged):
            return
        if not 0 <= event.at - self._minute < 60:
            self._minute, self._kept = event.at, 0
        self._kept += 1
        if self._kept > MOST_A_MINUTE:
            return
        who = (event.agent, event.tool, event.folder)
        what = (event.state, event.need, event.because, event.previous, event.seconds)
        self._database.write([(_KEEP, (event.at, *who, *what)), (_FORGET, (LONGEST,))])
