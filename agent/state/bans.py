"""Bans on the volume: read once before the listener opens, written as they happen.

Losing the database costs what it remembers and nothing else: one that is damaged is set aside and
replaced, one that cannot be written is told once, and SSH goes on.
"""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent.access.jail import Ban
from agent.events import BanLifted, BanStarted, Bus, Event, StateNotKept, StateReplaced
from agent.network import Network

T = TypeVar("T")

NAME = "state.db"

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS bans (
    network TEXT PRIMARY KEY,
    since REAL NOT NULL,   -- Unix time
    until REAL NOT NULL,
    times INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT
"""


class BanStore:
    """Subscribes to the bus and keeps what it says of bans. `path` is the database's file."""

    def __init__(self, path: str, bus: Bus) -> None:
        self._path = path
        self._bus = bus
        self._told = False
        # One thread: SQLite waits for the disk, and the order of writes is the order of events.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="state")

    def load(self, clock: float) -> list[Ban]:
        """All bans that were kept, on the jail's clock, which shows `clock` now.

        The wall clock may have been set back since: then a ban still is no longer than it was.
        """
        rows = self._run(
            lambda database: database.execute(
                "SELECT network, since, until, times, reason FROM bans"
            ).fetchall()
        )
        now = time.time()
        bans = []
        for text, since, until, times, reason in rows or ():
            late = max(0.0, since - now)
            network = Network.parse(text)
            bans.append(
                Ban(network, clock + since - late - now, clock + until - late - now, times, reason)
            )
        return bans

    def hear(self, event: Event) -> None:
        """Keep what an event says, in the writer's thread."""
        if isinstance(event, BanStarted) and not event.dry_run:
            row = (event.network, event.at, event.at + event.seconds, event.times, event.reason)
            self._write("INSERT OR REPLACE INTO bans VALUES (?, ?, ?, ?, ?)", row)
        elif isinstance(event, BanLifted):
            self._write("DELETE FROM bans WHERE network = ?", (event.network,))

    def close(self) -> None:
        """Wait until everything is written."""
        self._writer.shutdown()

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        loop = asyncio.get_running_loop()

        def write() -> None:
            def execute(database: sqlite3.Connection) -> None:
                with database:
                    database.execute(statement, values)

            self._run(execute, lambda event: loop.call_soon_threadsafe(self._bus.publish, event))

        self._writer.submit(write)

    def _run(
        self,
        work: Callable[[sqlite3.Connection], T],
        publish: Callable[[Event], object] | None = None,
    ) -> T | None:
        publish = publish or self._bus.publish
        try:
            try:
                return self._with_database(work)
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode not in _DAMAGED:
                    raise
                self._set_aside(str(error), publish)
                return self._with_database(work)
        except (sqlite3.Error, OSError) as error:
            if not self._told:
                self._told = True
                publish(StateNotKept(problem=f"{self._path}: {error}"))
            return None

    def _with_database(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with contextlib.closing(sqlite3.connect(self._path, timeout=2)) as database:
            database.execute(_SCHEMA)
            return work(database)

    def _set_aside(self, reason: str, publish: Callable[[Event], object]) -> None:
        kept_as = f"{self._path}.damaged-{time.strftime('%Y%m%dT%H%M%S')}-{os.urandom(2).hex()}"
        os.rename(self._path, kept_as)
        for suffix in ("-journal", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._path + suffix, kept_as + suffix)
        publish(StateReplaced(reason=f"{self._path}: {reason}", kept_as=kept_as))
