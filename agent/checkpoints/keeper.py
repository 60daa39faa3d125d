"""Makes checkpoints when they are due, one run at a time, and checks them once a week.

A run that takes too long is abandoned cleanly. SSH does not depend on any of this.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from msgspec.structs import replace as with_changes

from agent import safe
from agent.bus import Bus
from agent.checkpoints import policy, room, tags
from agent.checkpoints.faults import Fault, ResticError
from agent.checkpoints.policy import Cause, Past
from agent.checkpoints.repository import PATIENCE, Refused, Repository
from agent.checkpoints.running import TAKE_LEAVE
from agent.checkpoints.store import Checkpoint
from agent.clock import clock
from agent.events import CheckpointFailed, CheckpointMade, CheckpointsChecked, Notice
from agent.init.children import Children
from agent.platform.account import Account
from agent.settings import Settings
from agent.settings.current import Current

TICK = 30.0
"""Seconds between two checks of what is due."""

ABSENT_TICK = 600.0
"""Seconds between two searches for restic while it is not installed."""

MOST_WAITING = 8
"""The most requests that may wait for their turn."""

PART = "checkpoints"


@dataclass(frozen=True, slots=True)
class Keeping:
    """The state of checkpoints in this run. Times are monotonic."""

    past: Past
    running: str = ""
    """The work in progress, in words."""
    running_since: float = 0.0
    ran: float = -math.inf
    """When the last run ended."""
    made: int = 0
    failures: int = 0
    problem: str = ""
    """Why the last checkpoint failed."""
    absent: str = ""
    """Why no checkpoint can be made at all."""
    uploading: bool = False
    upload_failures: int = 0
    upload_problem: str = ""


class Keeper:
    """Takes turns at the repository. `active` says when something was last active (monotonic)."""

    def __init__(
        self,
        current: Current,
        account: Account,
        children: Children,
        environ: Mapping[str, str],
        active: Callable[[], float],
        bus: Bus,
    ) -> None:
        self.record = Keeping(Past(clock()))
        self.current = current
        self.account = account
        self.children = children
        self.environ = environ
        self.bus = bus
        self.repository = Repository(current, account, children, bus, self._notice)
        self.changed = asyncio.Event()
        """Set when there may be something to upload."""
        self._active = active
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._told = ""

    @property
    def is_overdue(self) -> bool:
        """Whether something works and no checkpoint has succeeded for a day."""
        return self.settings.checkpoints and policy.is_stale(
            self.record.past, self._active(), clock()
        )

    @property
    def restic_ran(self) -> float:
        """When restic last ran, on the monotonic clock: now, if it is running."""
        busy = self.record.running or self.record.uploading
        return clock() if busy else self.record.ran

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.current.value

    @property
    def host(self) -> str:
        """The host name of all snapshots: the machine's own name changes with each machine."""
        return self.environ.get("FLY_APP_NAME") or "swarm"

    async def run(self) -> None:
        """Make checkpoints on schedule until cancelled."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(ABSENT_TICK if self.record.absent else TICK)
        finally:
            self.close()

    def close(self) -> None:
        """Close the repository; it is opened again when it is needed."""
        self.repository.close()

    async def make(self, cause: Cause, note: str = "", patience: float = PATIENCE) -> Checkpoint:
        """Make a checkpoint now. Raises `ResticError` and `Refused`; both are published too."""
        async with self.turn(f"a checkpoint {cause.value}", cause):
            repository = self.repository
            if repository.ledger.damaged and not repository.whole.locked():
                # A backup would rely on lost data as if it were there.
                await repository.begin_again(repository.ledger.damaged)
            made = await self.make_here(cause, note, patience)
            if cause is not Cause.SLEEP:
                await repository.trim()
            return made

    async def before_sleep(self, patience: float) -> None:
        """Make a checkpoint within `patience` seconds; a failure does not stop the sleep."""
        due = policy.is_due_before_sleep(self.record.past, self._active())
        if not due or not self.settings.checkpoints or self.record.absent:
            return
        with suppress(ResticError, Refused, TimeoutError):
            async with asyncio.timeout(max(1.0, patience - TAKE_LEAVE)):
                await self.make(Cause.SLEEP, patience=patience)

    async def before_turn(self) -> None:
        """A coding agent's turn begins: make a checkpoint if the last one is too old."""
        if self.settings.checkpoints and policy.is_due_before_turn(self.record.past, clock()):
            with suppress(ResticError, Refused):
                await self.make(Cause.TURN)

    async def delete(self, ids: Sequence[str]) -> list[str]:
        """Remove checkpoints and their data. Raises `ResticError` and `Refused`."""
        async with self.turn("deleting checkpoints"):
            found = [self.repository.find(each).id for each in ids]
            if self.repository.whole.locked():
                raise Refused("checkpoints are being uploaded: try again when that is done")
            async with self.repository.whole:
                await self.repository.remove(found, "by hand", "5%")
            return found

    async def check(self) -> None:
        """Check the repository and a part of its data."""
        repository = self.repository
        if repository.whole.locked():
            return
        began = clock()
        async with self.turn("checking the repository"), repository.whole:
            if not repository.ledger.checkpoints:
                return
            problem = ""
            try:
                await repository.restic().check("5%")
            except ResticError as error:
                if error.fault is not Fault.DAMAGED and error.fault is not Fault.OTHER:
                    raise
                problem = str(error)
            repository.keep(with_changes(repository.ledger, checked=time.time(), damaged=problem))
            seconds = clock() - began
            self.bus.publish(
                CheckpointsChecked(repository="volume", problem=problem, seconds=seconds)
            )

    @asynccontextmanager
    async def turn(self, what: str, cause: Cause | None = None) -> AsyncIterator[None]:
        """Run one block at a time, with the repository open. Failures are published."""
        if self._waiting >= MOST_WAITING:
            raise Refused(f"{self._waiting} requests wait already: {self.record.running} runs")
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            self._set(running=what, running_since=clock())
            await self._prepare()
            yield
        except ResticError as error:
            await self._heed(error, cause)
            raise
        except OSError as error:
            problem = ResticError(
                Fault.OTHER, f"{error.filename or 'the volume'}: {error.strerror}"
            )
            await self._heed(problem, cause)
            raise problem from error
        except asyncio.CancelledError:
            if cause is not None:
                self._failed(cause, "abandoned: no time was left")
            raise
        finally:
            self._set(running="", ran=clock())
            self._turn.release()

    async def make_here(self, cause: Cause, note: str, patience: float = PATIENCE) -> Checkpoint:
        """Make a checkpoint; call it in a `turn`."""
        began, repository = clock(), self.repository
        # The remains of a failed run may be all that fills the volume.
        await repository.tidy(thoroughly=cause is not Cause.SLEEP)
        repository.require_room()
        repository.write_exclude()
        repository.keep(with_changes(repository.ledger, unclean=True))
        before = repository.ledger.checkpoints
        parent = before[-1].id if before and not repository.ledger.damaged else None
        restic = repository.restic(patience, gentle=cause in (Cause.HOURLY, Cause.TURN))
        volume = self.settings.volume
        work = restic.backup(volume, parent, self.host, tags.write(cause, note))
        summary, unread, count = await room.while_left(volume, work)
        made = Checkpoint(
            id=repository.whole_id(summary.snapshot_id),
            at=time.time(),
            cause=cause.value,
            note=note,
            files=summary.total_files_processed,
            bytes=summary.total_bytes_processed,
            new=summary.files_new,
            changed=summary.files_changed,
            added=summary.data_added,
            seconds=clock() - began,
            unread=count,
        )
        ledger = with_changes(repository.ledger, checkpoints=(*before, made), unclean=False)
        repository.keep(ledger)
        past = replace(self.record.past, made=clock())
        self._set(past=past, made=self.record.made + 1, problem="")
        self.bus.publish(
            CheckpointMade(
                checkpoint=made.id[:8],
                cause=cause.value,
                seconds=clock() - began,
                files=summary.total_files_processed,
                bytes=summary.total_bytes_processed,
                added=summary.data_added,
                unread=count,
            )
        )
        if unread:
            first = safe.line(", ".join(unread[:3]), 300)
            are = "file cannot be read and is" if count == 1 else "files cannot be read and are"
            self._notice(f"{count} {are} in no checkpoint: {first}")
        else:
            self._told = ""
        self.changed.set()
        return made

    def set_upload(
        self, *, uploading: bool | None = None, failures: int | None = None, problem: str = ""
    ) -> None:
        """Record the state of the upload."""
        if uploading is not None:
            self._set(uploading=uploading, ran=clock())
        if failures is not None:
            self._set(upload_failures=failures, upload_problem=problem)

    def _set(self, **changes: object) -> None:
        self.record = replace(self.record, **changes)  # type: ignore[arg-type]  # fields of ours

    async def _prepare(self) -> None:
        """Open folder and repository. Raises `ResticError`, `Refused`, `OSError`."""
        if not self.settings.checkpoints:
            raise Refused("checkpoints are switched off (SWARM_CHECKPOINTS)")
        if self.repository.is_open:
            return
        await self.repository.open()
        there = self.repository.ledger.checkpoints
        if self.record.past.made is None and there:
            made = policy.made_before(there[-1].at, time.time(), clock())
            self._set(past=replace(self.record.past, made=made))

    async def _look(self) -> None:
        """Do the work that is due."""
        if not self.settings.checkpoints:
            return
        now, past, active = clock(), self.record.past, self._active()
        due = policy.is_due(past, active, self.settings.checkpoint_every, now)
        if self.is_overdue:
            self._notice(f"no checkpoint for a day: {self.record.problem or 'none was made'}")
        try:
            if not self.repository.is_open and now - past.started >= policy.AFTER_START:
                async with self.turn("looking at the repository"):
                    self._set(absent="")
            if not self.repository.is_open:
                return
            if due:
                await self.make(Cause.HOURLY)
            elif policy.is_check_due(self.repository.ledger.checked, time.time()):
                await self.check()
        except (ResticError, Refused) as error:
            self._notice(str(error))

    async def _heed(self, error: ResticError, cause: Cause | None) -> None:
        """Record the fault, so that the next run reacts to it."""
        if error.fault is Fault.ABSENT:
            self._set(absent=str(error))
        if error.fault is Fault.DAMAGED and not error.away and self.repository.is_open:
            with suppress(OSError):
                ledger = self.repository.ledger
                self.repository.keep(with_changes(ledger, damaged=str(error)))
        if error.fault in (Fault.KEY, Fault.NO_REPOSITORY) and not error.away:
            self.close()  # the next turn opens it again, and sets it aside
        if cause is not None:
            self._failed(cause, str(error))

    def _failed(self, cause: Cause, problem: str) -> None:
        past = replace(self.record.past, failed=clock())
        self._set(past=past, failures=self.record.failures + 1, problem=problem)
        self.bus.publish(CheckpointFailed(cause=cause.value, problem=problem))

    def _notice(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self.bus.publish(Notice(part=PART, notice=text))
