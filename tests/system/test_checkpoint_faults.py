"""Faults of checkpoints: clear messages, and older ones stay intact."""

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.checkpoints import keeper as keepers
from agent.checkpoints import repository as repositories
from agent.checkpoints import running
from agent.checkpoints.faults import Fault, ResticError
from agent.checkpoints.policy import Cause
from agent.checkpoints.repository import Refused
from agent.checkpoints.undo import Order
from agent.events import CheckpointFailed, CheckpointMade, CheckpointsReplaced, Notice
from tests.checkpoints import Hands, Volume, seen
from tests.checkpoints import volume as make_volume

pytestmark = pytest.mark.root

KILLS = int(os.environ.get("CHECKPOINT_KILLS", "6"))


@pytest.fixture
def volume() -> Iterator[Volume]:
    with make_volume() as made:
        (made.work / "file").write_text("one")
        made.give()
        yield made


@pytest.fixture
def small_volume(volume: Volume) -> Iterator[Volume]:
    """A volume of 200 MB that is a file system of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "none", volume.path], check=True)
    try:
        volume.have_repository()
        volume.work.mkdir()
        (volume.work / "file").write_text("one")
        volume.give()
        yield volume
    finally:
        subprocess.run(["umount", "-l", volume.path], check=True)


def restic(volume: Volume, *words: str) -> str:
    """restic as root would call it by hand."""
    environ = {
        "PATH": os.environ["PATH"],
        "RESTIC_REPOSITORY": str(volume.own / "repo"),
        "RESTIC_PASSWORD_FILE": str(volume.own / "key"),
    }
    done = subprocess.run(
        ["restic", "--no-cache", *words], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def make(hands: Hands) -> str:
    return (await hands.keeper.make(Cause.HAND)).id


def restores(volume: Volume, name: str) -> bool:
    """Check that the checkpoint has the original content."""
    target = volume.path.parent / f"out{time.monotonic_ns()}"
    target.mkdir()
    os.chown(target, volume.account.uid, volume.account.gid)
    order = Order(name, to=os.fsencode(target))
    volume.run(lambda hands: hands.undo.restore(order))
    return (target / "work" / "file").read_text() == "one"


def test_a_full_volume_keeps_a_reserve_and_what_is_there(small_volume: Volume) -> None:
    volume = small_volume
    first = volume.run(make)
    (volume.work / "noise").write_bytes(os.urandom(120 << 20))
    (volume.work / "file").write_text("two")
    volume.give()
    with pytest.raises(ResticError) as error:
        volume.run(make)
    assert error.value.fault is Fault.FULL, error.value
    free = os.statvfs(volume.path)
    assert free.f_bavail * free.f_frsize > 0
    os.unlink(volume.work / "noise")
    assert restores(volume, first)
    assert volume.run(make), "and it works again where there is room"
    packs = sum(p.stat().st_blocks * 512 for p in (volume.own / "repo").rglob("*"))
    assert packs < 20 << 20, "what was given up leaves nothing"


def test_the_share_of_the_volume_is_kept_to(small_volume: Volume) -> None:
    volume = small_volume
    volume.environ["SWARM_CHECKPOINT_SHARE"] = "20%"

    async def fill(hands: Hands) -> None:
        await hands.keeper.make(Cause.HAND)
        for _ in range(6):
            (volume.work / "noise").write_bytes(os.urandom(12 << 20))
            volume.give()
            await hands.keeper.make(Cause.HAND)
        assert hands.keeper.repository.size < 0.2 * (200 << 20)

    volume.run(fill)
    restic(volume, "check")
    kept = volume.run(listing)
    assert 1 < len(kept) < 7
    assert restores(volume, kept[0]), "the oldest of the day is never pushed out by noise"


async def listing(hands: Hands) -> list[str]:
    async with hands.keeper.turn("looking"):
        return [each.id for each in hands.keeper.repository.ledger.checkpoints]


@pytest.mark.timeout(900)
def test_killed_at_any_moment(volume: Volume) -> None:
    """kill -9 of restic: the next checkpoint is made, and the repository is sound."""
    for number in range(300):
        (volume.work / f"f{number}").write_bytes(os.urandom(20_000))
    volume.give()
    volume.environ["SWARM_CHECKPOINT_KEEP"] = "hourly 999, daily 7, weekly 4"
    began = time.monotonic()
    first = volume.run(make)
    takes = time.monotonic() - began
    random_ = random.Random(20)
    killed = 0

    async def killed_make(hands: Hands) -> bool:
        work = asyncio.ensure_future(hands.keeper.make(Cause.HAND))
        await asyncio.sleep(random_.uniform(0.05, 0.95) * takes)
        for pid in restics(volume):
            os.kill(pid, signal.SIGKILL)
        try:
            await work
        except ResticError:
            return True
        return False

    for round_ in range(5 * KILLS):  # some come where restic is not running
        for number in random_.sample(range(300), 60):
            (volume.work / f"f{number}").write_bytes(os.urandom(20_000))
        volume.give()
        killed += volume.run(killed_make)
        volume.run(listing)  # opens the repository again, as after a start
        said = restic(volume, "check")
        assert "no errors were found" in said, (round_, said)
        if killed == KILLS:
            break
    assert killed == KILLS
    last = volume.run(make)
    assert restores(volume, first)
    assert restores(volume, last)


def restics(volume: Volume) -> list[int]:
    """The processes of restic that work on this volume."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "cwd") == str(volume.own):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_a_damaged_repository_is_set_aside_and_never_deleted(volume: Volume) -> None:
    volume.run(make)
    config = volume.own / "repo" / "config"
    config.chmod(0o600)
    config.write_bytes(os.urandom(155))
    digest = hashlib.sha256(config.read_bytes()).hexdigest()
    assert volume.run(make)
    replaced = [event for event in volume.events if isinstance(event, CheckpointsReplaced)]
    assert len(replaced) == 1
    kept = Path(replaced[0].kept_as)
    assert hashlib.sha256((kept / "config").read_bytes()).hexdigest() == digest
    assert "damaged" in replaced[0].reason


def test_data_that_is_gone_is_found_and_a_new_repository_begun(volume: Volume) -> None:
    """A pack is lost: the check reports it, and the next checkpoint does not depend on it."""
    (volume.work / "large").write_bytes(os.urandom(3 << 20))
    volume.give()
    volume.run(make)
    packs = [path for path in (volume.own / "repo" / "data").rglob("*") if path.is_file()]
    max(packs, key=lambda path: path.stat().st_size).unlink()

    async def check(hands: Hands) -> str:
        await hands.keeper.check()
        assert hands.keeper.repository.ledger.damaged
        return await make(hands)

    last = volume.run(check)
    assert restores(volume, last)
    restic(volume, "check", "--read-data")
    replaced = [event for event in volume.events if isinstance(event, CheckpointsReplaced)]
    assert (Path(replaced[0].kept_as) / "snapshots").exists()


def test_another_repository_in_its_place_is_told(volume: Volume) -> None:
    volume.run(make)
    with make_volume(new=True) as other:
        other.run(make)
        (volume.own / "repo").rename(volume.own / "old")
        (volume.own / "key").rename(volume.own / "old-key")
        (other.own / "repo").rename(volume.own / "repo")
        (other.own / "key").rename(volume.own / "key")
    volume.run(make)
    assert any(
        isinstance(event, Notice) and "another repository" in event.notice
        for event in volume.events
    )


def test_the_key_is_lost(volume: Volume) -> None:
    volume.run(make)
    (volume.own / "key").write_text("0" * 64)
    assert volume.run(make)
    assert any(isinstance(event, CheckpointsReplaced) for event in volume.events)


def test_two_at_once_wait_for_each_other(volume: Volume) -> None:
    async def both(hands: Hands) -> None:
        first, second = await asyncio.gather(make(hands), make(hands))
        assert first != second

    volume.run(both)
    assert len([event for event in volume.events if isinstance(event, CheckpointMade)]) == 2


def test_too_many_at_once_are_refused(volume: Volume) -> None:
    async def many(hands: Hands) -> None:
        tasks = [asyncio.ensure_future(make(hands)) for _ in range(keepers.MOST_WAITING + 2)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        problems = [t.exception() for t in tasks if t.done()]
        assert any(isinstance(each, Refused) for each in problems), problems
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    volume.run(many)


def test_a_sleep_is_delayed_by_its_budget_at_most(volume: Volume) -> None:
    """A checkpoint that is not done in time is abandoned, and the next one is complete."""
    with (volume.work / "sparse").open("wb") as file:
        file.truncate(9 << 30)  # reading it takes much longer than the budget
    volume.give()

    async def sleep(hands: Hands) -> float:
        await listing(hands)
        began = time.monotonic()
        await hands.keeper.before_sleep(2.0)
        return time.monotonic() - began

    assert volume.run(sleep) < 2.0 + 4.0
    assert any(isinstance(event, CheckpointFailed) for event in volume.events)
    assert not restics(volume)
    (volume.work / "sparse").unlink()
    assert restores(volume, volume.run(make))


def test_a_backup_that_does_not_move_is_given_up(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """restic hangs if a file becomes a pipe while it opens it; here a signal stops it."""

    async def stalls(hands: Hands) -> None:
        await hands.keeper.make(Cause.HAND)
        (volume.work / "random").write_bytes(os.urandom(60 << 20))
        volume.give()
        monkeypatch.setattr(running, "STALL", 1.0)
        making = asyncio.create_task(hands.keeper.make(Cause.HAND))
        async with asyncio.timeout(60):
            while not (found := restics(volume)):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            for pid in found:
                os.kill(pid, signal.SIGSTOP)
            with pytest.raises(ResticError, match="no progress in 1 s"):
                await making

    volume.run(stalls)
    assert not restics(volume)
    monkeypatch.undo()
    assert restores(volume, volume.run(make))


def test_without_restic_it_is_told_and_nothing_else_breaks(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repositories, "find", lambda: None)

    async def look(hands: Hands) -> None:
        with pytest.raises(ResticError, match="not installed"):
            await hands.keeper.make(Cause.HAND)
        await hands.keeper.before_sleep(5.0)
        assert "not installed" in hands.keeper.record.absent

    volume.run(look)


def test_paths_outside_the_volume_and_our_own_are_refused(volume: Volume) -> None:
    async def ask(hands: Hands) -> None:
        await make(hands)
        own = os.fsencode(volume.path / ".swarm")
        for path in (b"/etc/passwd", own, own + b"/checkpoints/key", b"relative", b"/a/../b"):
            with pytest.raises(Refused):
                await hands.undo.restore(Order("latest", (path,)))
        with pytest.raises(Refused, match="does not have"):
            await hands.undo.restore(Order("latest", (os.fsencode(volume.work / "never"),)))
        with pytest.raises(Refused, match="there is no checkpoint"):
            await hands.undo.restore(Order("--help"))
        with pytest.raises(Refused, match="not empty"):
            await hands.undo.restore(Order("latest", to=os.fsencode(volume.work)))

    before = seen(volume.work)
    volume.run(ask)
    assert seen(volume.work) == before


def test_an_ignore_file_that_leads_elsewhere_is_not_read(volume: Volume) -> None:
    os.symlink("/etc/shadow", volume.path / ".swarmignore")
    volume.run(make)
    assert any(
        isinstance(event, Notice) and ".swarmignore" in event.notice for event in volume.events
    )
    assert "root:" not in (volume.own / "exclude").read_text()
    (volume.path / ".swarmignore").unlink()
    os.mkfifo(volume.path / ".swarmignore")
    assert volume.run(make), "and a pipe hangs nothing"
