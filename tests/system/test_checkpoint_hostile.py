"""20,000 files, some of them worked on by a hostile script while checkpoints are made."""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from agent.checkpoints import running
from agent.checkpoints.faults import Fault, ResticError
from agent.checkpoints.policy import Cause
from agent.checkpoints.store import Checkpoint
from agent.checkpoints.undo import Order
from tests.checkpoints import Hands, Seen, seen
from tests.checkpoints import volume as make_volume

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

FILES = 20_000
ROUNDS, TRIES = 3, 5

HOSTILE = r"""
import os, random, signal, sys, time
work, secret = map(os.fsencode, sys.argv[1:])
os.chdir(work)
random.seed(7)
while True:
    name = b"d%d" % random.randrange(40)
    try:
        what = random.randrange(8); time.sleep(0.001)
        if what == 0:    # a folder becomes a link to what only root may read, and back
            os.rename(name, name + b".kept"); os.symlink(secret, name)
        elif what == 1:
            os.unlink(name); os.rename(name + b".kept", name)
        elif what == 2:
            os.mkdir(name)
        elif what == 3:
            path = name + b"/\xff\n" + os.urandom(4).hex().encode()
            with open(path, "wb") as file: file.write(os.urandom(3000))
        elif what == 4:  # a file becomes a pipe that nobody writes to
            path = name + b"/f"
            if random.randrange(2): os.path.exists(path) and os.unlink(path); os.mkfifo(path)
            else: os.unlink(path); open(path, "wb").close()
        elif what == 5:
            os.link(name + b"/f", name + b"/" + os.urandom(3).hex().encode())
        elif what == 6:
            with open(name + b"/sparse", "ab") as file: file.truncate(random.randrange(1 << 24))
        else:            # it meddles with restic itself
            for pid in os.listdir("/proc"):
                if not pid.isdigit() or int(pid) == os.getpid(): continue
                if os.stat(f"/proc/{pid}").st_uid == os.getuid():
                    for path in ("environ", "mem", "cwd/key", "root/etc/shadow", "fd/0"):
                        try:
                            with open(f"/proc/{pid}/{path}", "rb") as file: taken = file.read(100)
                        except (OSError, ValueError): continue
                        if b"RESTIC" in taken or path == "cwd/key":
                            with open("taken", "ab") as file: file.write(taken)
    except OSError:
        pass
"""


async def patient(hands: Hands) -> Checkpoint:
    """A file that becomes a pipe at the wrong moment blocks a checkpoint, which is abandoned."""
    for _ in range(TRIES):
        try:
            return await hands.keeper.make(Cause.HAND)
        except ResticError as error:
            assert error.fault is Fault.GIVEN_UP, error
    pytest.fail("a hostile script stops checkpoints")


@pytest.mark.long
def test_every_checkpoint_is_what_was_there_whatever_a_hostile_script_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with make_volume() as volume:
        secret = volume.path.parent / "secret"
        secret.mkdir(mode=0o700)
        (secret / "f").write_text("only root may read this")
        steady, wild = volume.work / "steady", volume.work / "wild"
        wild.mkdir()
        random_ = random.Random(3)
        for number in range(FILES):
            folder = steady / f"{number % 97}" / f"{number % 11}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}").write_bytes(random_.randbytes(random_.randrange(1500)))
        volume.give()
        files = [path for path in steady.rglob("*") if path.is_file()]
        uid, gid = volume.account.uid, volume.account.gid
        script = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", HOSTILE, wild, secret],
            user=uid,
            group=gid,
            extra_groups=[],
        )
        known: dict[str, dict[bytes, Seen]] = {}
        monkeypatch.setattr(running, "STALL", 10.0)

        async def work(hands: Hands) -> None:
            for _ in range(ROUNDS):
                for path in random_.sample(files, 500):
                    path.write_bytes(random_.randbytes(random_.randrange(1500)))
                gone = files.pop()
                gone.unlink()
                made = await patient(hands)
                known[made.id] = await asyncio.to_thread(seen, steady)

        try:
            volume.run(work)
            assert script.poll() is None, "the script ended early"
        finally:
            script.kill()
            script.wait()
        assert not (wild / "taken").exists()
        out = volume.path.parent / "out"
        out.mkdir()
        os.chown(out, uid, gid)

        async def restore(hands: Hands) -> None:
            for name in known:
                order = Order(name, (os.fsencode(volume.work),), os.fsencode(out / name))
                done = await hands.undo.restore(order)
                assert done.placed.failures == 0, done

        volume.run(restore)
        for name, before in known.items():
            assert seen(out / name / "work" / "steady") == before
            _has_no_secret(out / name)


def _has_no_secret(tree: Path) -> None:
    for folder, _, names in os.walk(os.fsencode(tree)):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path) and os.path.isfile(path):
                with open(path, "rb") as file:
                    assert b"only root" not in file.read(100), path


DEEP, MANY = "/".join(["d" * 240] * 14), 8_000
"""A folder with a path of 3.4 KB, and files in it."""


@pytest.mark.attack
@pytest.mark.parametrize("becomes", ["nothing", "a file"])
def test_many_long_paths_cost_the_agent_no_memory(becomes: str) -> None:
    """Removed, or below a folder that replaces a file: a restore processes each path."""

    async def use(hands: Hands) -> None:
        tree = volume.work / "tree"
        if becomes == "a file":
            tree.write_text("x")
            await hands.keeper.make(Cause.HAND)
            tree.unlink()
        folder = tree / DEEP
        folder.mkdir(parents=True)
        for number in range(MANY):
            (folder / str(number)).touch()
        if becomes == "nothing":
            await hands.keeper.make(Cause.HAND)
            await asyncio.to_thread(shutil.rmtree, tree)
        volume.give()
        tracemalloc.start()
        done = await hands.undo.restore(Order("latest", (os.fsencode(tree),)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert done.placed.failures == 0
        assert tree.is_file() == (becomes == "a file")
        # Each path is longer than this.
        assert peak < MANY * len(DEEP) // 4

    with make_volume() as volume:
        volume.run(use)
