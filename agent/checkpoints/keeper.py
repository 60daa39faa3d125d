"""Makes checkpoints when they are due, keeps those that the settings say, one run at a time.

What is not done in time is given up cleanly: a run that was interrupted or killed leaves older
checkpoints as they were, and the next run removes what it left. Nothing here can fail SSH.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from msgspec.structs import replace as with_changes

from agent import safe
from agent.bus import Bus
from agent.checkpoints import policy, tags
from agent.checkpoints.policy import Cause, Past
from agent.checkpoints.restic import (
    TAKE_LEAVE,
    Fault,
    Restic,
    ResticError,
    Surroundings,
    find,
    identity_of,
    version_of,
)
from agent.checkpoints.store import Checkpoint, Ledger, Store, known, patterns, read_ignore_file
from agent.clock import clock
from agent.events import (
    CheckpointFailed,
    CheckpointMade,
    CheckpointsChecked,
    CheckpointsRemoved,
    CheckpointsReplaced,
    Notice,
)
from agent.init.children import Children
from agent.platform import volume
from agent.platform.account import CHECKPOINTS_GROUP, Account, credentials_of
from agent.settings import Settings
from agent.settings.current import Current

T = TypeVar("T")

TICK = 30.0
"""Seconds between two looks at what is due."""

ABSENT_TICK = 600.0
"""Seconds between two looks for a restic that is not there."""

PATIENCE = 3600.0
"""Seconds that one run of restic may take when nobody waits for it."""

MOST_WAITING = 8
"""Requests that may wait for their turn."""

PRUNE_AFTER = 6
"""Checkpoints that no rule keeps, until their data is deleted: it costs more than a checkpoint."""

RESERVE, RESERVE_SHARE = 64 << 20, 0.02
"""What checkpoints leave free on the volume: the work must not stop for them."""

SPACE_TICK = 2.0
MOST_ROUNDS = 6
"""Rounds of removing the oldest until the rest fits into its share."""

IGNORE = "../data/checkpoint-ignore.txt"
PART = "checkpoints"
ASIDE = (Cause.COMPARE.value, Cause.RESTORE.value)


class Refused(Exception):
    """Something is not done; the message says why."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How it goes in this run. Times are monotonic."""

    past: Past
    running: str = ""
    """What runs now, for people."""
    running_since: float = 0.0
    made: int = 0
    failures: int = 0
    problem: str = ""
    """Why the last one was not made."""
    size: int = 0
    """Bytes that all of it takes on the volume."""
    absent: str = ""
    """Why no checkpoint can be made at all."""
    uploading: bool = False
    upload_failures: int = 0
    upload_problem: str = ""


class Keeper:
    """The one who has the repository. `active` says when something was last active (monotonic)."""

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
        self.ledger = Ledger()
        self.current = current
        self.account = account
        self.children = children
        self.environ = environ
        self.bus = bus
        self.changed = asyncio.Event()
        """There may be something to upload."""
        self.whole = asyncio.Lock()
        """Held by who needs the repository to stay as it is, or to itself."""
        self._active = active
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._store: Store | None = None
        self._around: Surroundings | None = None
        self._told = ""

    @property
    def is_overdue(self) -> bool:
        """Something works, and no checkpoint could be made for a day."""
        return self.settings.checkpoints and policy.is_stale(
            self.record.past, self._active(), clock()
        )

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self.current.value

    async def run(self) -> None:
        """Make checkpoints by the clock until cancelled."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(ABSENT_TICK if self.record.absent else TICK)
        finally:
            self.close()

    async def make(self, cause: Cause, note: str = "", patience: float = PATIENCE) -> Checkpoint:
        """Make one now. Raises `ResticError` and `Refused`; both are published too."""
        async with self.turn(f"a checkpoint {cause.value}", cause):
            if self.ledger.damaged and not self.whole.locked():
                # Data that is lost would be taken for what is there already.
                await self._begin_anew(self.store, self.restic(), self.ledger.damaged)
            made = await self.make_here(cause, note, patience)
            if cause is not Cause.SLEEP:
                await self._trim()
            return made

    async def before_sleep(self, patience: float) -> None:
        """Make one unless it would take longer; the sleep does not depend on it."""
        due = policy.is_due_before_sleep(self.record.past, self._active())
        if not due or not self.settings.checkpoints or self.record.absent:
            return
        with suppress(ResticError, Refused, TimeoutError):
            async with asyncio.timeout(max(1.0, patience - TAKE_LEAVE)):
                await self.make(Cause.SLEEP, patience=patience)

    async def before_turn(self) -> None:
        """An agent's turn begins: make one if the last is too old."""
        if self.settings.checkpoints and policy.is_due_before_turn(self.record.past, clock()):
            with suppress(ResticError, Refused):
                await self.make(Cause.TURN)

    async def delete(self, ids: Sequence[str]) -> list[str]:
        """Remove checkpoints and their data. Raises `ResticError` and `Refused`."""
        async with self.turn("deleting checkpoints"):
            found = [self.find(each).id for each in ids]
            if self.whole.locked():
                raise Refused("checkpoints are being uploaded: try again when that is done")
            async with self.whole:
                await self._remove(found, "by hand")
                await self.restic().prune("5%")
            await self.measure()
            return found

    def find(self, name: str) -> Checkpoint:
        """The checkpoint whose id begins so. Raises `Refused`.

        `latest` is the last one that no command of comparing or restoring has made: those show what
        somebody wants to undo.
        """
        there = self.ledger.checkpoints
        if name == "latest" and there:
            return next((each for each in reversed(there) if each.cause not in ASIDE), there[-1])
        found = [each for each in there if name and each.id.startswith(name)]
        if len(found) != 1:
            many = "is the beginning of several" if found else "is none"
            raise Refused(f"{name!r} {many}: swarm-agent checkpoints lists them")
        return found[0]

    @asynccontextmanager
    async def turn(self, what: str, cause: Cause | None = None) -> AsyncIterator[None]:
        """One at a time, with everything in place. What goes wrong is published."""
        if self._waiting >= MOST_WAITING:
            raise Refused(f"{self._waiting} others wait: {self.record.running} runs")
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            self._set(running=what, running_since=clock())
            await self.prepare()
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
                self._failed(cause, "given up: there was no more time")
            raise
        finally:
            self._set(running="")
            self._turn.release()

    def restic(self, patience: float = PATIENCE, *, gentle: bool = True) -> Restic:
        """restic in our folder; call it in a `turn`."""
        if self._around is None:
            raise Refused("there is no repository yet")
        return Restic(self._around, patience=patience, gentle=gentle)

    @property
    def store(self) -> Store:
        """The folder; call it in a `turn`."""
        if self._store is None:
            raise Refused("there is no repository yet")
        return self._store

    async def prepare(self) -> None:
        """Have restic, folder and repository. Raises `ResticError`, `Refused`, `OSError`."""
        if not self.settings.checkpoints:
            raise Refused("checkpoints are switched off (SWARM_CHECKPOINTS)")
        if self._around is not None:
            return
        program = find()
        if program is None:
            raise ResticError(Fault.ABSENT, "apt-get install restic")
        run_as = credentials_of(self.account.name)
        if run_as is not None and CHECKPOINTS_GROUP in (run_as.gid, *run_as.groups):
            raise Refused(f"{self.account.name} is in the group {CHECKPOINTS_GROUP} of checkpoints")
        version = await version_of(self.children, program)
        store = self._open_store()
        try:
            identity = identity_of(run_as)
            descriptor = store.folder.descriptor
            self._around = Surroundings(self.children, descriptor, identity, program, version)
            self._store = store
            await self._take_up(store)
        except BaseException:
            self.close()
            raise

    async def make_here(self, cause: Cause, note: str, patience: float = PATIENCE) -> Checkpoint:
        """Make one; call it in a `turn`."""
        began = clock()
        # What a run left that did not end well may be all that is in the way.
        await self._tidy(thoroughly=cause is not Cause.SLEEP)
        await self._require_room()
        self._write_exclude()
        self.keep(with_changes(self.ledger, unclean=True))
        before = self.ledger.checkpoints
        gentle = cause in (Cause.HOURLY, Cause.TURN)
        parent = before[-1].id if before and not self.ledger.damaged else None
        restic = self.restic(patience, gentle=gentle)
        work = restic.backup(self.settings.volume, parent, self.host, tags.write(cause, note))
        summary, unread, count = await self._while_there_is_room(work)
        made = Checkpoint(
            id=self._whole_id(summary.snapshot_id),
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
        self.keep(with_changes(self.ledger, checkpoints=(*before, made), unclean=False))
        self._set(
            past=replace(self.record.past, made=clock()), made=self.record.made + 1, problem=""
        )
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
            self._notice(f"{count} files cannot be read and are in no checkpoint: {first}")
        else:
            self._told = ""
        self.changed.set()
        return made

    @property
    def host(self) -> str:
        """The name under which snapshots are kept: the machine's own changes with each machine."""
        return self.environ.get("FLY_APP_NAME") or "swarm"

    def keep(self, ledger: Ledger) -> None:
        """Know and write down. Raises `OSError`."""
        self.ledger = ledger
        self.store.write_ledger(ledger)

    async def refresh(self, restic: Restic) -> None:
        """Learn from the repository which checkpoints there are."""
        there = {each.id: each for each in await restic.snapshots()}
        still = [each for each in self.ledger.checkpoints if each.id in there]
        new = [known(there[name]) for name in there.keys() - {each.id for each in still}]
        merged = (*sorted(new, key=lambda each: each.at), *still)
        if merged != self.ledger.checkpoints:
            self.keep(with_changes(self.ledger, checkpoints=merged))

    async def measure(self) -> None:
        """Learn how much of the volume it takes."""
        self._set(size=await asyncio.to_thread(self.store.size))

    def set_upload(
        self, *, uploading: bool | None = None, failures: int | None = None, problem: str = ""
    ) -> None:
        """Remember how the upload is doing."""
        if uploading is not None:
            self._set(uploading=uploading)
        if failures is not None:
            self._set(upload_failures=failures, upload_problem=problem)

    def _set(self, **changes: object) -> None:
        self.record = replace(self.record, **changes)  # type: ignore[arg-type]  # fields of ours

    def close(self) -> None:
        """Close the folder; it is opened again when it is needed."""
        if self._store is not None:
            self._store.close()
        self._store = self._around = None

    def _open_store(self) -> Store:
        def replaced(reason: str, kept_as: str) -> None:
            self.bus.publish(CheckpointsReplaced(reason=reason, kept_as=kept_as))

        if not os.path.isdir(self.settings.volume):
            raise Refused(f"{self.settings.volume} is no folder")
        try:
            with volume.own_folder(self.settings.volume, replaced) as own:
                return Store.open(own, credentials_of(self.account.name))
        except volume.NotTrusted as error:
            raise Refused(f"{self.settings.volume}: {error}") from error

    async def _take_up(self, store: Store) -> None:
        """Continue with the repository that is there, or make one."""
        store.clear()
        store.break_locks()
        try:
            self.ledger = store.read_ledger()
        except (ValueError, volume.NotTrusted) as error:
            kept_as = store.folder.set_aside("ledger")
            self.ledger = Ledger(unclean=True)
            self._notice(f"what was known of checkpoints is unreadable, kept as {kept_as}: {error}")
        restic = self.restic()
        if store.has_repository:
            try:
                await self.refresh(restic)
            except ResticError as error:
                if error.fault is Fault.DAMAGED and "config or key" not in str(error):
                    self.keep(with_changes(self.ledger, damaged=str(error)))
                elif error.fault in (Fault.KEY, Fault.NO_REPOSITORY, Fault.DAMAGED):
                    await self._begin_anew(store, restic, str(error))
                else:
                    raise
            else:
                self._know_repository(store)
        elif self.ledger.repository:
            await self._begin_anew(store, restic, "it is gone")
        else:
            await self._begin(store, restic)
        latest = self.ledger.checkpoints[-1].at if self.ledger.checkpoints else None
        made = policy.made_before(latest, time.time(), clock())
        if self.record.past.made is None:
            self._set(past=replace(self.record.past, made=made))
        await self.measure()

    def _know_repository(self, store: Store) -> None:
        name = store.repository_id()
        if self.ledger.repository not in ("", name):
            self._notice("another repository lies in the place of the one that was there before")
        if self.ledger.repository != name:
            self.keep(with_changes(self.ledger, repository=name))

    async def _begin_anew(self, store: Store, restic: Restic, reason: str) -> None:
        kept_as = store.set_aside_repository()
        self.bus.publish(CheckpointsReplaced(reason=reason, kept_as=kept_as))
        self.keep(Ledger())
        await self._begin(store, restic)

    async def _begin(self, store: Store, restic: Restic) -> None:
        # What an init that was killed has left is no repository.
        store.empty_repository()
        await restic.init()
        self._know_repository(store)

    async def _look(self) -> None:
        """Do what is due."""
        if not self.settings.checkpoints:
            return
        now, past, active = clock(), self.record.past, self._active()
        due = policy.is_due(past, active, self.settings.checkpoint_every, now)
        if self.is_overdue:
            self._notice(f"no checkpoint for a day: {self.record.problem or 'none was made'}")
        try:
            if self._around is None and now - past.started >= policy.AFTER_START:
                async with self.turn("looking at the repository"):
                    self._set(absent="")
            if self._around is None:
                return
            if due:
                await self.make(Cause.HOURLY)
            elif time.time() - self.ledger.checked > policy.CHECK_EVERY:
                await self.check()
        except (ResticError, Refused) as error:
            self._notice(str(error))

    async def check(self) -> None:
        """Look whether the repository is whole."""
        if self.whole.locked():
            return
        began = clock()
        async with self.turn("checking the repository"), self.whole:
            if not self.ledger.checkpoints:
                return
            problem = ""
            try:
                await self.restic().check("5%")
            except ResticError as error:
                if error.fault is not Fault.DAMAGED and error.fault is not Fault.OTHER:
                    raise
                problem = str(error)
            self.keep(with_changes(self.ledger, checked=time.time(), damaged=problem))
            seconds = clock() - began
            self.bus.publish(
                CheckpointsChecked(repository="volume", problem=problem, seconds=seconds)
            )

    async def _heed(self, error: ResticError, cause: Cause | None) -> None:
        """Remember what went wrong, so that the next run does what helps."""
        if error.fault is Fault.ABSENT:
            self._set(absent=str(error))
        if error.fault is Fault.DAMAGED and self._store is not None:
            with suppress(OSError):
                self.keep(with_changes(self.ledger, damaged=str(error)))
        if error.fault in (Fault.KEY, Fault.NO_REPOSITORY):
            self.close()  # it is looked at again, and set aside
        if cause is not None:
            self._failed(cause, str(error))

    def _failed(self, cause: Cause, problem: str) -> None:
        past = replace(self.record.past, failed=clock())
        self._set(past=past, failures=self.record.failures + 1, problem=problem)
        self.bus.publish(CheckpointFailed(cause=cause.value, problem=problem))

    async def _tidy(self, *, thoroughly: bool) -> None:
        """Remove what a run that did not end well has left."""
        if not self.ledger.unclean or self.whole.locked():
            return
        async with self.whole:
            self.store.break_locks()
            if not thoroughly:
                return
            await self.refresh(self.restic())
            await self.restic().prune("unlimited")
            await self.measure()  # what was given up may have been most of it
            self.keep(with_changes(self.ledger, unclean=False))

    async def _trim(self) -> None:
        """Remove what no rule keeps, and what is more than the share of the volume."""
        surplus = policy.surplus(self.ledger.checkpoints, self.settings.checkpoint_keep)
        await self.measure()
        limit = self._limit()
        if self.whole.locked() or (len(surplus) < PRUNE_AFTER and self.record.size <= limit):
            return
        async with self.whole:
            if surplus:
                await self._remove(surplus, "no rule keeps them")
                await self.restic().prune("5%")
                await self.measure()
            for _ in range(MOST_ROUNDS):
                if self.record.size <= limit:
                    return
                oldest = policy.evictable(self.ledger.checkpoints, time.time())
                if not oldest:
                    break
                await self._remove(oldest[: len(oldest) // 4 + 1], "they use more than their share")
                await self.restic().prune("0")
                await self.measure()

    async def _remove(self, ids: Sequence[str], reason: str) -> None:
        await self.restic().forget(ids)
        left = tuple(each for each in self.ledger.checkpoints if each.id not in set(ids))
        self.keep(with_changes(self.ledger, checkpoints=left))
        short = tuple(each[:8] for each in ids)
        self.bus.publish(CheckpointsRemoved(checkpoints=short, reason=reason))

    def _limit(self) -> int:
        status = os.statvfs(self.settings.volume)
        return int(status.f_blocks * status.f_frsize * self.settings.checkpoint_share)

    async def _require_room(self) -> None:
        """Raise where there is no room, and nothing may go for it."""
        if self.record.size > self._limit() and not policy.evictable(
            self.ledger.checkpoints, time.time()
        ):
            raise ResticError(
                Fault.FULL,
                "checkpoints use more than their share, and those of the last day stay: raise "
                "SWARM_CHECKPOINT_SHARE, leave more out in .swarmignore, or delete some as root",
            )
        if not self._has_room():
            raise ResticError(Fault.FULL, f"{self.settings.volume} is full but for a reserve")

    def _has_room(self) -> bool:
        status = os.statvfs(self.settings.volume)
        reserve = min(RESERVE, status.f_blocks * status.f_frsize // 10)
        reserve = max(reserve, int(status.f_blocks * status.f_frsize * RESERVE_SHARE))
        return status.f_bavail * status.f_frsize > reserve

    async def _while_there_is_room(self, work: Coroutine[None, None, T]) -> T:
        """Give it up when the volume gets full: the user's programs need the rest."""
        running = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait([running], timeout=SPACE_TICK))[0]:
                if not self._has_room():
                    raise ResticError(Fault.FULL, f"{self.settings.volume} got full; given up")
            return running.result()
        finally:
            running.cancel()
            await asyncio.wait([running])

    def _write_exclude(self) -> None:
        with open(os.path.join(os.path.dirname(__file__), IGNORE), encoding="utf-8") as file:
            lines = patterns(file.read(), self.settings.volume)
        lines += [f"{self.settings.volume}/{volume.FOLDER}"]
        lines += [f"{self.settings.volume}/{volume.FOLDER}.refused-*"]
        try:
            lines += read_ignore_file(self.settings.volume, self.account.uid)
        except (OSError, ValueError) as error:
            self._notice(f"{self.settings.volume}/.swarmignore is not used: {error}")
        self.store.write_exclude("\n".join(lines) + "\n")

    def _whole_id(self, name: str) -> str:
        """restic names a new snapshot by the beginning of its id."""
        if len(name) == 64:
            return name
        return self.store.whole_name("repo/snapshots", name)

    def _notice(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self.bus.publish(Notice(part=PART, notice=text))
