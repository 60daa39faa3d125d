"""How long the machine was awake and used, in rows of ten minutes, kept for over a year.

Days, months, the budget, and the chart of the last day are all sums of these rows.
"""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.bus import Bus
from agent.events import ConnectionClosed, Event, SessionOpened, SleepBegan, WakeJudged
from agent.state.database import Database

SLOT = 600
"""Seconds of one row."""

KEPT = 400 * 86400
BEAT = 60.0
"""Seconds between two writes."""

SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS slots (
    start INTEGER PRIMARY KEY,  -- Unix time
    awake REAL NOT NULL,        -- seconds
    sessions INTEGER NOT NULL,  -- the most at one time
    logins INTEGER NOT NULL,
    failures INTEGER NOT NULL
) STRICT
""",
    """
CREATE TABLE IF NOT EXISTS counters (
    name TEXT PRIMARY KEY,
    value REAL NOT NULL
) STRICT
""",
)
_ADD = """
INSERT INTO slots VALUES (?, ?, ?, ?, ?) ON CONFLICT (start) DO UPDATE SET
    awake = min(awake + excluded.awake, 600), sessions = max(sessions, excluded.sessions),
    logins = logins + excluded.logins, failures = failures + excluded.failures
"""
_FORGET = "DELETE FROM slots WHERE start < ?"
_COUNT = """
INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1
"""


@dataclass(frozen=True, slots=True)
class Slot:
    """Ten minutes. `start` is Unix time, `awake` seconds, `sessions` the most at one time."""

    start: int
    awake: float
    sessions: int
    logins: int
    failures: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals of previous runs: seconds awake, and counts of events (`wakes/login`)."""

    awake: float
    counters: dict[str, float]


class Usage:
    """Adds up from `begin` until `close`. `open_sessions` says how many there are now."""

    def __init__(self, database: Database, open_sessions: Callable[[], int], bus: Bus) -> None:
        self._database = database
        self._open_sessions = open_sessions
        self._bus = bus
        self._counted = time.monotonic()
        self._logins = 0
        self._failures = 0
        self._month = 0.0
        """Seconds awake in the calendar month (UTC), as of the last beat."""

    @property
    def this_month(self) -> float:
        """Seconds awake in the calendar month (UTC)."""
        return self._month + min(time.monotonic() - self._counted, 2 * BEAT)

    async def begin(self, since: float, *, early: bool) -> Totals:
        """Add up from now on; with `early`, since this run began at `since` (monotonic)."""
        if early:
            self._counted = since
        totals = await self._database.read(_totals) or Totals(0.0, {})
        self._bus.subscribe(self.hear, early=early)
        await self.beat()
        return totals

    async def beat(self) -> None:
        """Write what was added up; call it every `BEAT` seconds."""
        self._write_slot()
        month = time.strftime("%Y-%m", time.gmtime())
        self._month = (await self.by("month", 1)).get(month, 0.0)

    def _write_slot(self) -> None:
        now, wall = time.monotonic(), time.time()
        # A machine that was frozen for longer than a beat was not awake for that time.
        awake = min(now - self._counted, 2 * BEAT)
        self._counted = now
        self._month += awake
        slot = int(wall) // SLOT * SLOT
        row = (slot, awake, self._open_sessions(), self._logins, self._failures)
        self._logins = self._failures = 0
        self._database.write([(_ADD, row), (_FORGET, (slot - KEPT,))])

    async def close(self) -> None:
        """Write the rest and stop."""
        self._bus.unsubscribe(self.hear)
        self._write_slot()

    async def since(self, at: float) -> list[Slot]:
        """The rows from `at` (Unix time) on, the oldest first; time asleep has none."""

        def work(database: sqlite3.Connection) -> list[Slot]:
            query = "SELECT * FROM slots WHERE start >= ? ORDER BY start"
            return [Slot(*row) for row in database.execute(query, (int(at),))]

        return await self._database.read(work) or []

    async def by(self, unit: str, most: int) -> dict[str, float]:
        """Seconds awake by `day` or `month` (UTC), the latest first, at most `most`."""
        form = {"day": "%Y-%m-%d", "month": "%Y-%m"}[unit]

        def work(database: sqlite3.Connection) -> dict[str, float]:
            query = """
                SELECT strftime(?, start, 'unixepoch') AS unit, sum(awake) FROM slots
                GROUP BY unit ORDER BY unit DESC LIMIT ?
            """
            return dict(database.execute(query, (form, most)).fetchall())

        return await self._database.read(work) or {}

    def hear(self, event: Event) -> None:
        """Count one event."""
        if isinstance(event, SessionOpened):
            self._logins += 1
        elif isinstance(event, ConnectionClosed):
            self._failures += 1
        elif isinstance(event, WakeJudged):
            self._database.write([(_COUNT, (f"wakes/{event.reason}",))])
        elif isinstance(event, SleepBegan):
            self._database.write([(_COUNT, (f"sleeps/{event.reason}/{event.mode}",))])


def _totals(database: sqlite3.Connection) -> Totals:
    awake = database.execute("SELECT total(awake) FROM slots").fetchone()[0]
    return Totals(awake, dict(database.execute("SELECT name, value FROM counters").fetchall()))
