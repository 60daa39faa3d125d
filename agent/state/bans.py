"""The memory of bans: a SQLite database in our folder on the volume.

Losing it costs what it remembers and nothing else: a database that is damaged is set aside and
replaced, one that cannot be written is told once, and SSH goes on. A thread of its own does the
work, because SQLite waits for the disk.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent.access.jail import Jail
from agent.events import BanLifted, BanStarted, Bus, Event, StateNotKept, StateReplaced
from agent.platform import volume
from agent.state import banlist
from agent.state.banlist import Clocks, Row

T = TypeVar("T")
Change = tuple[str, tuple[object, ...]]

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
_SELECT = "SELECT network, since, until, times, reason FROM bans"
_INSERT = "INSERT OR REPLACE INTO bans VALUES (?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM bans WHERE network = ?"


class BanStore:
    """Keeps bans from `begin` until `close`. `volume_path` is the volume's root."""

    def __init__(self, volume_path: str, jail: Jail, bus: Bus) -> None:
        self._volume = volume_path
        self._path = f"{volume_path}/{volume.FOLDER}/{NAME}"
        self._jail = jail
        self._bus = bus
        self._pending: queue.SimpleQueue[list[Change]] = queue.SimpleQueue()
        self._told = False
        self._loop = asyncio.get_running_loop()
        # One thread: the order of writes is the order of events.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="state")

    async def begin(self, clocks: Clocks) -> None:
        """Tell the jail what the boot's list has missed, and keep what happens from now on."""
        rows = await self._loop.run_in_executor(self._worker, self._attempt, _all_rows)
        known = {ban.network for ban in self._jail.all()}
        for row in rows or ():
            ban = clocks.to_jail(*row)
            if ban.network not in known:
                self._jail.restore(ban)
        # No await between this snapshot and the subscription: no event is lost between them.
        self._submit([(_INSERT, clocks.to_row(ban)) for ban in self._jail.all()])
        self._bus.subscribe(self._hear)

    def close(self) -> None:
        """Keep nothing more, and wait until everything is written."""
        self._bus.unsubscribe(self._hear)
        self._worker.shutdown()

    def _hear(self, event: Event) -> None:
        if isinstance(event, BanStarted) and not event.dry_run:
            row = (event.network, event.at, event.at + event.seconds, event.times, event.reason)
            self._submit([(_INSERT, row)])
        elif isinstance(event, BanLifted):
            self._submit([(_DELETE, (event.network,))])

    def _submit(self, changes: list[Change]) -> None:
        # What comes while the worker is busy is written in one go: a storm of bans is no queue.
        self._pending.put(changes)
        self._worker.submit(self._write_pending)

    def _write_pending(self) -> None:
        changes: list[Change] = []
        while not self._pending.empty():
            changes += self._pending.get()
        if not changes:
            return

        def write(database: sqlite3.Connection) -> list[Row]:
            with database:
                for statement, values in changes:
                    database.execute(statement, values)
            return _all_rows(database)

        rows = self._attempt(write)
        if rows is not None:
            self._attempt_list(rows)

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        try:
            try:
                return self._with_database(work)
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode not in _DAMAGED:
                    raise
                self._set_aside(str(error))
                return self._with_database(work)
        except (sqlite3.Error, OSError) as error:
            self._not_kept(f"{self._path}: {error}")
            return None

    def _attempt_list(self, rows: list[Row]) -> None:
        try:
            banlist.write(self._volume, rows, self._replaced)
        except (OSError, volume.NotTrusted) as error:
            self._not_kept(f"{self._volume}/{volume.FOLDER}/{banlist.NAME}: {error}")

    def _with_database(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with contextlib.closing(sqlite3.connect(self._path, timeout=2)) as database:
            database.execute(_SCHEMA)
            return work(database)

    def _set_aside(self, reason: str) -> None:
        kept_as = f"{self._path}.damaged-{time.strftime('%Y%m%dT%H%M%S')}-{os.urandom(2).hex()}"
        os.rename(self._path, kept_as)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._path + "-journal", kept_as + "-journal")
        self._replaced(f"{self._path}: {reason}", kept_as)

    def _replaced(self, reason: str, kept_as: str) -> None:
        self._publish(StateReplaced(reason=reason, kept_as=kept_as))

    def _not_kept(self, problem: str) -> None:
        if not self._told:
            self._told = True
            self._publish(StateNotKept(problem=problem))

    def _publish(self, event: Event) -> None:
        self._loop.call_soon_threadsafe(self._bus.publish, event)


def _all_rows(database: sqlite3.Connection) -> list[Row]:
    return database.execute(_SELECT).fetchall()
