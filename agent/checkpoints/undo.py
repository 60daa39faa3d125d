"""Compares with checkpoints, and restores them.

A restore goes to a stage that only root can enter. From there a process of the account, with the
account's rights, puts the files in their places. A restore in place also makes a checkpoint of the
present, and then touches only what differs between the two: so it can be undone, and files that no
checkpoint has are never lost.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from agent import safe
from agent.bounded import beside
from agent.checkpoints.away import Away
from agent.checkpoints.differences import MOST_PATHS, Differences, differences
from agent.checkpoints.faults import Fault, ResticError
from agent.checkpoints.keeper import Keeper
from agent.checkpoints.policy import Cause
from agent.checkpoints.repository import PATIENCE, Refused
from agent.checkpoints.restic import Change
from agent.checkpoints.store import Checkpoint
from agent.clock import clock
from agent.events import CheckpointRestored
from agent.init.children import NotDone, clean_environment
from agent.platform import volume
from agent.platform.account import credentials_of

PLACE = os.path.join(os.path.dirname(__file__), "place.py")
SHOWN = 256 << 10
"""The most bytes of paths that a comparison lists."""

SAID = 1 << 16
"""Bytes that are kept of the output of the process that places files."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order to restore paths below the volume; without paths, everything.

    Without `to`, in place. `away`: from the repository away from the machine.
    """

    checkpoint: str
    paths: tuple[bytes, ...] = ()
    to: bytes | None = None
    away: bool = False


class Placed(msgspec.Struct, frozen=True):
    """The report of the process that places files."""

    placed: int
    removed: int
    failures: int
    problems: list[str]


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of a restore. `before` is the checkpoint that undoes it."""

    checkpoint: Checkpoint
    before: Checkpoint | None
    placed: Placed


class Undo:
    """Compares and restores."""

    def __init__(self, keeper: Keeper, away: Away) -> None:
        self._keeper = keeper
        self._away = away

    async def changes(
        self, first: str, second: str | None, path: bytes | None, most: int
    ) -> tuple[Checkpoint, Checkpoint, list[Change], int]:
        """The changes in the second checkpoint or the present, up to a limit, and their number."""
        keeper = self._keeper
        found: list[Change] = []
        count = size = 0
        prefix = os.fsdecode(path or os.fsencode(keeper.settings.volume)).rstrip("/")

        def hear(change: Change) -> None:
            nonlocal count, size
            name = change.path.rstrip("/")
            if change.modifier == "U" and change.path.endswith("/"):
                return  # a folder's time changes with every entry
            if name == prefix or name.startswith(f"{prefix}/"):
                count += 1
                size += len(name)
                if len(found) < most and size < SHOWN:
                    found.append(change)

        async with keeper.turn("comparing checkpoints"):
            before = keeper.repository.find(first)
            if second is None:
                after = await keeper.make_here(Cause.COMPARE, "")
            else:
                after = keeper.repository.find(second)
            await keeper.repository.restic(gentle=False).diff(before.id, after.id, hear)
        return before, after, found, count

    async def restore(self, order: Order) -> Restored:
        """Carry out a restore. Raises `ResticError` and `Refused`."""
        keeper, began = self._keeper, clock()
        paths = self._checked(order)
        async with keeper.turn(f"restoring {order.checkpoint}"):
            repository = keeper.repository
            name = await self._away.fetch(order.checkpoint) if order.away else order.checkpoint
            wanted = repository.find(name)
            # First, because it may need exclusive use of the repository.
            await repository.tidy(thoroughly=True)
            stage = repository.store.new_stage()
            try:
                with differences(repository.store.path) as differ:
                    async with beside(self._stage(wanted, paths, stage)) as staging:
                        before = None
                        if order.to is None:
                            note = f"before restoring {wanted.id[:8]}"
                            before = await keeper.make_here(Cause.RESTORE, note)
                            await self._compare(before, wanted, differ)
                        await staging
                    placed = await self._put(order, paths, wanted, differ, stage)
            finally:
                await asyncio.to_thread(repository.store.remove_stage, stage)
        target = "in place" if order.to is None else os.fsdecode(order.to)
        keeper.bus.publish(
            CheckpointRestored(
                checkpoint=wanted.id[:8],
                target=safe.line(target, 300),
                placed=placed.placed,
                removed=placed.removed,
                failures=placed.failures,
                seconds=clock() - began,
            )
        )
        return Restored(wanted, before, placed)

    async def _stage(self, wanted: Checkpoint, paths: Sequence[bytes], stage: str) -> None:
        """Restore to a folder that only root can enter, for the account to take over."""
        repository = self._keeper.repository
        restic = repository.restic(PATIENCE, gentle=False)
        said = await restic.restore(wanted.id, paths, stage)
        if "no space left" in said.lower():
            raise ResticError(Fault.FULL, "the files to restore do not fit on the volume")
        run_as = credentials_of(self._keeper.account.name)
        if run_as is not None:
            await asyncio.to_thread(repository.store.hand_over, stage, run_as.gid)

    async def _put(
        self,
        order: Order,
        paths: Sequence[bytes],
        wanted: Checkpoint,
        differ: Differences,
        stage: str,
    ) -> Placed:
        """Have the files of the stage put in their places."""
        keeper, store = self._keeper, self._keeper.repository.store
        descriptor = store.open_stage(stage)
        try:
            there = [path for path in paths if _exists(b"." + path, descriptor)]
            if not there:
                raise Refused(f"{wanted.id[:8]} does not have {os.fsdecode(paths[0])!a}")
            if order.to is not None:
                words = [b"to", order.to, os.fsencode(keeper.settings.volume)]
                return await self._place(words, descriptor, None)
            return await self._place([b"in", *there], descriptor, differ.file)
        finally:
            os.close(descriptor)

    async def _compare(self, before: Checkpoint, wanted: Checkpoint, differ: Differences) -> None:
        """Write down their differences."""
        restic = self._keeper.repository.restic(gentle=False)
        await restic.diff(before.id, wanted.id, differ.add)
        # If a folder becomes something else, restic does not list the folder's content.
        if differ.replaced and not differ.too_many:
            await restic.below(before.id, list(differ.replaced), differ.add)
        if differ.too_many:
            raise Refused(
                f"{differ.count} paths differ: restore into a folder (--to) and copy from there"
            )
        differ.end()

    async def _place(self, words: Sequence[bytes], stage: int, changes: int | None) -> Placed:
        keeper = self._keeper
        argv = [os.fsencode(sys.executable), b"-I", b"-S", os.fsencode(PLACE), *words]
        try:
            done = await keeper.children.run(
                argv,
                env=clean_environment(),
                stdin=subprocess.DEVNULL if changes is None else changes,
                patience=PATIENCE,
                keep=SAID,
                cwd=f"/proc/self/fd/{stage}",
                run_as=credentials_of(keeper.account.name),
            )
        except (OSError, NotDone) as error:
            raise ResticError(Fault.OTHER, f"cannot place files: {error}") from error
        last = done.output.strip().rpartition(b"\n")[2]
        if done.status.code != 0:
            raise Refused(f"the files cannot be placed: {safe.output(last, 300)}")
        return msgspec.json.decode(last, type=Placed)

    def _checked(self, order: Order) -> list[bytes]:
        """The paths; each must be below the volume and outside our folder. Raises `Refused`."""
        root = os.fsencode(self._keeper.settings.volume)
        if len(order.paths) > MOST_PATHS:
            raise Refused(f"at most {MOST_PATHS} paths")
        for path in (*order.paths, *(() if order.to is None else (order.to,))):
            if not path.startswith(b"/") or os.path.normpath(path) != path or b"\0" in path:
                raise Refused(f"{os.fsdecode(path)!a} is not an absolute path without . and ..")
        own = os.path.join(root, os.fsencode(volume.FOLDER))
        for path in order.paths:
            if path != root and not path.startswith(root + b"/"):
                raise Refused(f"{os.fsdecode(path)!a} is not on the volume: no checkpoint has it")
            if path == own or path.startswith(own + b"/"):
                raise Refused(f"{volume.FOLDER} is the agent's own folder: no checkpoint has it")
        return list(order.paths) or [root]


def _exists(path: bytes, folder: int) -> bool:
    with suppress(FileNotFoundError, NotADirectoryError):
        os.stat(path, dir_fd=folder, follow_symlinks=False)
        return True
    return False
