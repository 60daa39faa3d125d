"""The state database: SQLite in our folder on the volume, behind a thread of its own.

Its loss affects nothing else: a damaged database is set aside and replaced, a database that cannot
be written is reported once, and SSH keeps working. SQLite waits for the disk, so it never runs in
the event loop.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent.bus import Bus
from agent.events import ErrorUnhandled, Event, StateKept, StateNotKept, StateReplaced
from agent.init.children import leave_signals
from agent.platform import volume

T = TypeVar("T")

Change = tuple[str, tuple[object, ...]]
"""A statement and its values."""

NAME = "state.db"
MOST_UNWRITTEN = 100_000
"""Changes that wait for a volume that is full, read-only or gone; the oldest are lost first."""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Database:
    """Applies changes in the order in which they are given.

    `schema` is a list of statements that create missing tables. Without `volume_path` everything is
    kept in memory only.
    """

    def __init__(
        self,
        volume_path: str | None,
        schema: Sequence[str],
        bus: Bus,
        unwritten: Sequence[Change] = (),
    ) -> None:
        self._volume = volume_path or ""
        self.path = "" if volume_path is None else f"{volume_path}/{volume.FOLDER}/{NAME}"
        self._schema = schema
        self._bus = bus
        self._memory: sqlite3.Connection | None = None
        self._pending: queue.SimpleQueue[Change] = queue.SimpleQueue()
        self._unwritten: deque[Change] = deque(unwritten, MOST_UNWRITTEN)
        self._reported = False
        self._loop = asyncio.get_running_loop()
        # One thread: the order of writes is the order of events.
        self._worker = ThreadPoolExecutor(1, "state", initializer=leave_signals)
        if unwritten:
            self.later(self._write_pending)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """The result of `work`, after all earlier changes are written; None after an error."""
        return await self._loop.run_in_executor(self._worker, self.attempt, work)

    def write(self, changes: Sequence[Change]) -> None:
        """Queue changes; they are written soon, in the order in which they are given.

        Changes that cannot be written are retried with the next ones.
        """
        # Changes queued while the thread is busy are written together: a storm must not pile up.
        for change in changes:
            self._pending.put(change)
        self.later(self._write_pending)

    def later(self, work: Callable[[], None]) -> None:
        """Call `work` in the database's thread, after all earlier changes are written."""
        self._worker.submit(self._guarded, work)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            where = "".join(traceback.format_exception(error))
            self.publish(ErrorUnhandled(problem=f"{self.path}: {error!r}", where=where))

    async def flush(self, patience: float) -> None:
        """Wait until all earlier changes are written, at most `patience` seconds."""
        # asyncio.wait works in a task that is being cancelled, asyncio.timeout does not (3.11).
        written = asyncio.wrap_future(self._worker.submit(lambda: None))
        await asyncio.wait([written], timeout=patience)

    def unwritten(self) -> tuple[Change, ...]:
        """Changes that could not be written so far."""
        self._take_pending()
        return tuple(self._unwritten)

    def tell_not_kept(self, problem: str) -> None:
        """Report once that changes cannot be written; call it from the database's thread."""
        if not self._reported:
            self._reported = True
            self.publish(StateNotKept(problem=problem))

    def tell_replaced(self, reason: str, kept_as: str) -> None:
        """Report that a damaged file was set aside; call it from the database's thread."""
        self.publish(StateReplaced(reason=reason, kept_as=kept_as))

    def publish(self, event: Event) -> None:
        """Publish an event from the database's thread."""
        self._loop.call_soon_threadsafe(self._bus.publish, event)

    def _take_pending(self) -> None:
        while not self._pending.empty():
            self._unwritten.append(self._pending.get())

    def _write_pending(self) -> None:
        self._take_pending()

        def work(database: sqlite3.Connection) -> bool:
            with database:
                for statement, values in self._unwritten:
                    database.execute(statement, values)
            return True

        written = self.attempt(work) if self._unwritten else None
        if written:
            self._unwritten.clear()
            if self._reported:
                self._reported = False
                self.publish(StateKept(path=self.path))

    def attempt(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """The result of `work`, or None after an error, which is reported once.

        Call it from the database's thread.
        """
        try:
            try:
                return self._with_database(work)
            except sqlite3.DatabaseError as error:
                # The lowest byte of the extended code is the plain one; an error about invalid
                # UTF-8 has no code.
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
                if code & 0xFF not in _DAMAGED:
                    raise
                self._set_aside(str(error))
                return self._with_database(work)
        except (sqlite3.Error, OSError, volume.NotTrusted) as error:
            self.tell_not_kept(f"{self.path}: {error}")
            return None

    def _with_database(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if not self.path:
            if self._memory is None:
                self._memory = sqlite3.connect(":memory:")
                self._prepare(self._memory)
            return work(self._memory)
        # SQLite opens by name: the folder must be ours at that moment.
        with volume.own_folder(self._volume, self.tell_replaced):
            pass
        with contextlib.closing(sqlite3.connect(self.path, timeout=2)) as database:
            self._prepare(database)
            return work(database)

    def _prepare(self, database: sqlite3.Connection) -> None:
        for statement in self._schema:
            database.execute(statement)

    def _set_aside(self, reason: str) -> None:
        kept_as = f"{self.path}.damaged-{time.strftime('%Y%m%dT%H%M%S')}-{os.urandom(2).hex()}"
        os.rename(self.path, kept_as)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path + "-journal", kept_as + "-journal")
        self.tell_replaced(f"{self.path}: {reason}", kept_as)
