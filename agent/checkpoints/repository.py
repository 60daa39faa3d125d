"""The repository on the volume: opening, recovering and bounding it.

The keeper calls this one run at a time. Anything damaged is set aside, never deleted. A killed run
leaves older checkpoints intact, and the next run removes its remains.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace as with_changes

from agent.bus import Bus
from agent.checkpoints import policy, room
from agent.checkpoints.faults import Fault, ResticError
from agent.checkpoints.policy import Cause
from agent.checkpoints.restic import Restic
from agent.checkpoints.running import Surroundings, find, identity_of, version_of
from agent.checkpoints.store import Checkpoint, Ledger, Store, known, patterns, read_ignore_file
from agent.events import CheckpointsRemoved, CheckpointsReplaced
from agent.init.children import Children
from agent.platform import volume
from agent.platform.account import CHECKPOINTS_GROUP, Account, credentials_of
from agent.settings import Settings
from agent.settings.current import Current

PATIENCE = 3600.0
"""Seconds that one run of restic may take if nobody waits for it."""

PRUNE_AFTER = 6
"""So many surplus checkpoints are collected before their data is deleted, which is expensive."""

MOST_ROUNDS = 6
"""The most rounds of removing the oldest until the rest fits into the share."""

IGNORE = "../data/checkpoint-ignore.txt"
ASIDE = (Cause.COMPARE.value, Cause.RESTORE.value)


class Refused(Exception):
    """A request is refused; the message says why."""


class Repository:
    """restic's repository, and the ledger beside it. `notice` reports a degradation."""

    def __init__(
        self,
        current: Current,
        account: Account,
        children: Children,
        bus: Bus,
        notice: Callable[[str], None],
    ) -> None:
        self.ledger = Ledger()
        self.size = 0
        """Its size on the volume in bytes."""
        self.whole = asyncio.Lock()
        """A lock for work that needs the repository unchanged, or for itself."""
        self._current = current
        self._account = account
        self._children = children
        self._bus = bus
        self._notice = notice
        self._store: Store | None = None
        self._around: Surroundings | None = None

    @property
    def is_open(self) -> bool:
        """Whether folder and repository were found or created."""
        return self._around is not None

    @property
    def store(self) -> Store:
        """The open folder. Raises `Refused`."""
        if self._store is None:
            raise Refused("there is no repository yet")
        return self._store

    def restic(self, patience: float = PATIENCE, *, gentle: bool = True) -> Restic:
        """A `Restic` for our folder. Raises `Refused`."""
        if self._around is None:
            raise Refused("there is no repository yet")
        return Restic(self._around, patience=patience, gentle=gentle)

    async def open(self) -> None:
        """Find restic, and open or create the repository.

        Raises `ResticError`, `Refused`, `OSError`.
        """
        program = find()
        if program is None:
            raise ResticError(Fault.ABSENT, "apt-get install restic")
        run_as = credentials_of(self._account.name)
        if run_as is not None and CHECKPOINTS_GROUP in (run_as.gid, *run_as.groups):
            name = self._account.name
            raise Refused(f"{name} is in the group {CHECKPOINTS_GROUP} of checkpoints")
        version = await version_of(self._children, program)
        self._store = store = self._open_store()
        try:
            self._around = Surroundings(
                self._children, store.folder.descriptor, identity_of(run_as), program, version
            )
            await self._take_up(store)
            await self.measure()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the folder; it is opened again when it is needed."""
        if self._store is not None:
            self._store.close()
        self._store = self._around = None

    def find(self, name: str) -> Checkpoint:
        """The checkpoint whose id begins with `name`. Raises `Refused`.

        `latest` is the last one that was not made for a comparison or a restore: those contain
        the changes that somebody wants to undo.
        """
        there = self.ledger.checkpoints
        if name == "latest" and there:
            return next((each for each in reversed(there) if each.cause not in ASIDE), there[-1])
        found = [each for each in there if name and each.id.startswith(name)]
        if len(found) != 1:
            several = f"{name!r} is the beginning of several"
            wrong = several if found else f"there is no checkpoint {name!r}"
            raise Refused(f"{wrong}: swarm-agent checkpoints lists them")
        return found[0]

    def keep(self, ledger: Ledger) -> None:
        """Take over a ledger and write it. Raises `OSError`."""
        self.ledger = ledger
        self.store.write_ledger(ledger)

    async def refresh(self) -> None:
        """Read the list of checkpoints from the repository."""
        there = {each.id: each for each in await self.restic().snapshots()}
        still = [each for each in self.ledger.checkpoints if each.id in there]
        new = [known(there[name]) for name in there.keys() - {each.id for each in still}]
        merged = (*sorted(new, key=lambda each: each.at), *still)
        if merged != self.ledger.checkpoints:
            self.keep(with_changes(self.ledger, checkpoints=merged))

    async def measure(self) -> None:
        """Measure its size on the volume."""
        self.size = await asyncio.to_thread(self.store.size)

    async def begin_again(self, reason: str) -> None:
        """Set the repository aside and create a new one."""
        kept_as = self.store.set_aside_repository()
        self._bus.publish(CheckpointsReplaced(reason=reason, kept_as=kept_as))
        self.keep(Ledger())
        await self._begin()

    async def tidy(self, *, thoroughly: bool) -> None:
        """Remove the remains of a failed run."""
        if not self.ledger.unclean or self.whole.locked():
            return
        async with self.whole:
            self.store.break_locks()
            if not thoroughly:
                return
            await self.refresh()
            await self.restic().prune("unlimited")
            await self.measure()  # the abandoned data may have been most of it
            self.keep(with_changes(self.ledger, unclean=False))

    async def trim(self) -> None:
        """Remove checkpoints that no rule keeps, and those beyond the share of the volume."""
        surplus = policy.surplus(self.ledger.checkpoints, self._settings.checkpoint_keep)
        await self.measure()
        limit = room.limit(self._settings.volume, self._settings.checkpoint_share)
        if self.whole.locked() or (len(surplus) < PRUNE_AFTER and self.size <= limit):
            return
        async with self.whole:
            if surplus:
                await self.remove(surplus, "no rule keeps them", "5%")
            for _ in range(MOST_ROUNDS):
                if self.size <= limit:
                    return
                oldest = policy.evictable(self.ledger.checkpoints, time.time())
                if not oldest:
                    break
                several = oldest[: len(oldest) // 4 + 1]
                await self.remove(several, "they use more than their share", "0")

    async def remove(self, ids: Sequence[str], reason: str, unused: str) -> None:
        """Delete checkpoints; `unused` is the tolerated share of unused data."""
        await self.restic().forget(ids)
        left = tuple(each for each in self.ledger.checkpoints if each.id not in set(ids))
        self.keep(with_changes(self.ledger, checkpoints=left))
        short = tuple(each[:8] for each in ids)
        self._bus.publish(CheckpointsRemoved(checkpoints=short, reason=reason))
        await self.restic().prune(unused)
        await self.measure()

    def require_room(self) -> None:
        """Raise `ResticError` if there is no room and nothing may be deleted to make room."""
        path, share = self._settings.volume, self._settings.checkpoint_share
        may_go = policy.evictable(self.ledger.checkpoints, time.time())
        if self.size > room.limit(path, share) and not may_go:
            raise ResticError(
                Fault.FULL,
                "checkpoints use more than their share, and those of the last day stay: raise "
                "SWARM_CHECKPOINT_SHARE, leave more out in .swarmignore, or delete some as root",
            )
        if not room.is_left(path):
            raise ResticError(Fault.FULL, f"{path} is full except for a reserve")

    def write_exclude(self) -> None:
        """Write the file of excluded patterns."""
        path = self._settings.volume
        with open(os.path.join(os.path.dirname(__file__), IGNORE), encoding="utf-8") as file:
            lines = patterns(file.read(), path)
        lines += [f"{path}/{volume.FOLDER}", f"{path}/{volume.FOLDER}.refused-*"]
        try:
            lines += read_ignore_file(path, self._account.uid)
        except (OSError, ValueError) as error:
            self._notice(f"{path}/.swarmignore is not used: {error}")
        self.store.write_exclude("\n".join(lines) + "\n")

    def whole_id(self, name: str) -> str:
        """The whole id of a snapshot; restic before 0.17 prints only the beginning of a new id."""
        return name if len(name) == 64 else self.store.whole_name("repo/snapshots", name)

    @property
    def _settings(self) -> Settings:
        return self._current.value

    def _open_store(self) -> Store:
        def replaced(reason: str, kept_as: str) -> None:
            self._bus.publish(CheckpointsReplaced(reason=reason, kept_as=kept_as))

        path = self._settings.volume
        if not os.path.isdir(path):
            raise Refused(f"{path} is not a folder")
        try:
            with volume.own_folder(path, replaced) as own:
                return Store.open(own, credentials_of(self._account.name))
        except volume.NotTrusted as error:
            raise Refused(f"{path}: {error}") from error

    async def _take_up(self, store: Store) -> None:
        """Continue with the existing repository, or create one."""
        store.clear()
        store.break_locks()
        try:
            self.ledger = store.read_ledger()
        except (ValueError, volume.NotTrusted) as error:
            kept_as = store.folder.set_aside("ledger")
            self.ledger = Ledger(unclean=True)
            self._notice(f"the ledger of checkpoints is unreadable, kept as {kept_as}: {error}")
        if not store.has_repository:
            if self.ledger.repository:
                return await self.begin_again("it is gone")
            return await self._begin()
        try:
            await self.refresh()
        except ResticError as error:
            if error.fault is Fault.DAMAGED and "config or key" not in str(error):
                self.keep(with_changes(self.ledger, damaged=str(error)))
            elif error.fault in (Fault.KEY, Fault.NO_REPOSITORY, Fault.DAMAGED):
                await self.begin_again(str(error))
            else:
                raise
        else:
            self._know_repository()
        return None

    def _know_repository(self) -> None:
        name = self.store.repository_id()
        if self.ledger.repository not in ("", name):
            self._notice("another repository has replaced the previous one")
        if self.ledger.repository != name:
            self.keep(with_changes(self.ledger, repository=name))

    async def _begin(self) -> None:
        # The remains of a killed init are not a repository.
        self.store.empty_repository()
        await self.restic().init()
        self._know_repository()
