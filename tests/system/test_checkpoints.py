"""Checkpoints with the real restic: making, listing, comparing, restoring, and faults."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.checkpoints.policy import Cause
from agent.checkpoints.undo import Order
from tests.checkpoints import Hands, Volume, seen
from tests.checkpoints import volume as make_volume

pytestmark = pytest.mark.root


@pytest.fixture
def volume() -> Iterator[Volume]:
    with make_volume() as made:
        yield made


def hard_names(work: Path) -> None:
    """A tree with everything that a file system allows."""
    (work / "src" / "deep").mkdir(parents=True)
    (work / "src" / "main.c").write_text("int main;")
    (work / "src" / "deep" / "a").write_bytes(os.urandom(100_000))
    os.link(work / "src" / "deep" / "a", work / "src" / "deep" / "b")
    os.symlink("/etc/shadow", work / "src" / "shadow")
    os.symlink("nowhere", work / "src" / "dangling")
    os.mkfifo(work / "src" / "pipe")
    for name in (b"new\nline", b"\xff\xfe", b"star*[x]?", b"back\\slash", "ünï".encode(), b"-rf"):
        path = os.path.join(os.fsencode(work / "src"), name)
        with open(path, "wb") as file:
            file.write(name)
    (work / "src" / "program").write_text("#!/bin/sh\n")
    (work / "src" / "program").chmod(0o755)
    (work / "src" / "closed").mkdir()
    (work / "src" / "closed" / "kept").write_text("kept")
    (work / "src" / "empty").mkdir()
    with (work / "src" / "sparse").open("wb") as file:
        file.truncate(50 << 20)


def test_a_folder_that_was_deleted_comes_back_exactly(volume: Volume) -> None:
    hard_names(volume.work)
    volume.give()
    (volume.work / "src" / "closed").chmod(0o500)
    os.utime(volume.work / "src" / "main.c", ns=(1, 1_234_567_890_123_456_789))
    before = seen(volume.work)

    async def use(hands: Hands) -> None:
        await hands.keeper.make(Cause.HAND, "all is well")
        shutil.rmtree(volume.work / "src")
        path = os.fsencode(volume.work / "src")
        done = await hands.undo.restore(Order("latest", (path,)))
        assert done.placed.failures == 0, done
        assert done.before is not None
        assert hands.keeper.repository.find("latest").note == "all is well", (
            "not what the restore has made"
        )

    volume.run(use)
    after = seen(volume.work)
    assert after == before
    assert (volume.work / "src/deep/a").stat().st_ino == (volume.work / "src/deep/b").stat().st_ino
    owners = {path.lstat().st_uid for path in volume.work.rglob("*")}
    assert owners == {volume.account.uid}
    assert {path.lstat().st_gid for path in volume.work.rglob("*")} == {volume.account.gid}


def test_a_restore_in_place_can_be_undone(volume: Volume) -> None:
    hard_names(volume.work)
    volume.give()
    first = seen(volume.work)

    async def change(hands: Hands) -> None:
        await hands.keeper.make(Cause.HAND)
        (volume.work / "src" / "main.c").write_text("worse")
        (volume.work / "src" / "new").mkdir()
        (volume.work / "src" / "new" / "file").write_text("new")
        (volume.work / "src" / "star*[x]?").unlink()
        os.unlink(os.path.join(os.fsencode(volume.work), b"src/\xff\xfe"))
        shutil.rmtree(volume.work / "src" / "closed")
        (volume.work / "src" / "closed").write_text("a file now")
        volume.give()

    async def restore(hands: Hands, name: str = "latest") -> str:
        done = await hands.undo.restore(Order(name))
        assert done.placed.failures == 0, done
        assert done.before is not None
        return done.before.id

    volume.run(change)
    second = seen(volume.work)
    shell = os.open(volume.work / "src", os.O_RDONLY)
    present = volume.run(restore)
    assert seen(volume.work) == first
    assert os.fstat(shell).st_ino == (volume.work / "src").stat().st_ino, "who is in it stays in it"
    os.close(shell)
    volume.run(lambda hands: restore(hands, present))
    assert seen(volume.work) == second


def test_a_file_in_use_is_replaced_and_who_has_it_open_keeps_the_old_one(volume: Volume) -> None:
    program, note = volume.work / "program", volume.work / "note"
    shutil.copy2("/bin/sleep", program)
    note.write_text("one")
    volume.give()
    volume.run(lambda hands: hands.keeper.make(Cause.HAND))
    before = seen(volume.work)

    with program.open("ab") as file:
        file.write(b"more")
    note.write_text("two")
    volume.give()
    running = subprocess.Popen([program, "1000"])
    try:
        with note.open() as reader:
            done = volume.run(lambda hands: hands.undo.restore(Order("latest")))
            assert done.placed.failures == 0, done
            assert seen(volume.work) == before
            assert reader.read() == "two"
        assert running.poll() is None
    finally:
        running.kill()
        running.wait()


def test_what_no_checkpoint_has_is_never_lost(volume: Volume) -> None:
    (volume.work / "project" / "node_modules").mkdir(parents=True)
    (volume.work / "project" / "node_modules" / "x").write_text("x")
    (volume.work / "project" / "code").write_text("1")
    (volume.path / ".swarmignore").write_text("*.big\n/work/project/$HOME\n")
    volume.give()

    async def use(hands: Hands) -> None:
        await hands.keeper.make(Cause.HAND)
        shutil.rmtree(volume.work / "project")
        (volume.work / "project" / "node_modules").mkdir(parents=True)
        (volume.work / "project" / "node_modules" / "y").write_text("y")
        (volume.work / "project" / "data.big").write_text("large")
        (volume.work / "project" / "extra").write_text("goes")
        volume.give()
        done = await hands.undo.restore(Order("latest"))
        assert done.placed.failures == 0, done

    volume.run(use)
    left = sorted(str(p.relative_to(volume.work)) for p in volume.work.rglob("*"))
    assert left == [
        "project",
        "project/code",
        "project/data.big",
        "project/node_modules",
        "project/node_modules/y",
    ]


def test_a_comparison_shows_what_changed_and_no_folder_for_its_time(volume: Volume) -> None:
    (volume.work / "sub").mkdir()
    (volume.work / "sub" / "a").write_text("one")
    (volume.work / "sub" / "b").write_text("two")
    (volume.work / "c").write_text("three")
    volume.give()

    async def compare(hands: Hands) -> list[tuple[str, str]]:
        await hands.keeper.make(Cause.HAND)
        (volume.work / "sub" / "b").unlink()
        (volume.work / "c").write_text("other")
        _, _, found, count = await hands.undo.changes("latest", None, None, 100)
        assert count == len(found)
        return sorted((change.modifier, change.path) for change in found)

    work = str(volume.work)
    assert volume.run(compare) == [("-", f"{work}/sub/b"), ("M", f"{work}/c")]


@pytest.fixture
def new_volume() -> Iterator[Volume]:
    with make_volume(new=True) as made:
        yield made


def test_nobody_but_root_gets_at_the_repository(new_volume: Volume) -> None:
    """Modes, owners, and the group that keeps the account's processes out of restic."""
    volume = new_volume
    (volume.work / "a").write_text("a")
    os.chown(volume.work / "a", volume.account.uid, 5)  # a group that the account is not in
    (volume.work / "a").chmod(0o2755)

    async def use(hands: Hands) -> None:
        await hands.keeper.make(Cause.HAND)
        target = os.fsencode(volume.path.parent / "out" / "there")
        (volume.path.parent / "out").mkdir()
        os.chown(volume.path.parent / "out", volume.account.uid, volume.account.gid)
        await hands.undo.restore(Order("latest", to=target))

    volume.run(use)
    restored = (volume.path.parent / "out" / "there" / "work" / "a").stat()
    assert restored.st_gid == volume.account.gid
    assert not restored.st_mode & (stat.S_ISGID | stat.S_ISUID)
    assert stat.S_IMODE((volume.path / ".swarm").stat().st_mode) == 0o700
    assert (volume.own / "key").stat().st_uid == 0
    assert stat.S_IMODE((volume.own / "key").stat().st_mode) == 0o640
    assert os.listdir(volume.own / "stage") == []


def test_files_that_only_root_can_read_are_in_no_checkpoint(volume: Volume) -> None:
    """Not through a link, nor a folder that becomes one: restic only has the account's rights."""
    secret = volume.path.parent / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    (volume.work / "own").write_text("mine")
    os.symlink(secret, volume.work / "link")
    (volume.work / "roots").write_text("root's")
    volume.give()
    os.chown(volume.work / "roots", 0, 0)
    (volume.work / "roots").chmod(0o600)

    async def use(hands: Hands) -> int:
        return (await hands.keeper.make(Cause.HAND)).unread

    assert volume.run(use) == 1
