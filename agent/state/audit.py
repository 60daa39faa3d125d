"""The audit: every session from login to logout, kept in the state database."""

import sqlite3
from dataclasses import dataclass

from agent.bus import Bus
from agent.events import Event, SessionClosed, SessionOpened
from agent.state.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY,
    opened REAL NOT NULL,  -- Unix time
    closed REAL,           -- NULL while it is open, or if the machine stopped meanwhile
    client TEXT NOT NULL,
    user TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT
"""

LONGEST = 10_000
"""How many sessions are kept, the latest ones."""

_OPEN = "INSERT OR REPLACE INTO sessions VALUES (?, ?, NULL, ?, ?, ?, ?, 0, 0, '')"
_CLOSE = "UPDATE sessions SET closed = ?, bytes_in = ?, bytes_out = ?, reason = ? WHERE id = ?"
_FORGET = """
DELETE FROM sessions WHERE opened < (SELECT opened FROM sessions ORDER BY opened DESC
                                     LIMIT 1 OFFSET ?)
"""
_SINCE = "SELECT * FROM sessions WHERE opened >= ? OR closed >= ? ORDER BY opened DESC LIMIT ?"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One session. Times are Unix time; `closed` is None while it is open or its end is unknown."""

    id: str
    opened: float
    closed: float | None
    client: str
    user: str
    key: str
    fingerprint: str
    bytes_in: int
    bytes_out: int
    reason: str


class Audit:
    """Keeps sessions from `begin` until `close`."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus

    def begin(self, *, early: bool) -> None:
        """Record events from now on; with `early`, also those since the start."""
        self._bus.subscribe(self.hear, early=early)

    def close(self) -> None:
        """Stop recording."""
        self._bus.unsubscribe(self.hear)

    async def since(self, at: float, most: int = LONGEST) -> list[AuditEntry]:
        """The sessions that were open at `at` (Unix time) or later, the latest first."""

        def work(database: sqlite3.Connection) -> list[AuditEntry]:
            rows = database.execute(_SINCE, (at, at, most)).fetchall()
            return [AuditEntry(*row) for row in rows]

        return await self._database.read(work) or []

    def hear(self, event: Event) -> None:
        """Record one event."""
        if isinstance(event, SessionOpened):
            who = (event.client, event.user, event.key, event.fingerprint)
            self._database.write(
                [(_OPEN, (event.session, event.at, *who)), (_FORGET, (LONGEST - 1,))]
            )
        elif isinstance(event, SessionClosed):
            values = (event.at, event.bytes_in, event.bytes_out, event.reason, event.session)
            self._database.write([(_CLOSE, values)])
