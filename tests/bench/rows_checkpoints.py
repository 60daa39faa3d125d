"""Checkpoints of a gigabyte: the agent's, compared with restic alone, and a login meanwhile."""

import asyncio
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.checkpoints.policy import Cause
from agent.checkpoints.undo import Order
from agent.init.proctree import descendants
from tests.bench.contenders import Contender
from tests.bench.rows_login import timed_login
from tests.bench.table import AGENT, Row, Samples, Target
from tests.checkpoints import Hands, Volume
from tests.checkpoints import volume as make_volume

RESTIC = "restic alone"
FILES, SIZE = 6000, 170_000
"""A gigabyte."""

BUDGET = 4.0
"""Seconds that a checkpoint before a sleep may take; the first one of a gigabyte takes longer."""

CHANGED = 50
"""Files that change between two checkpoints."""


def checkpoints(runs: int, count: int) -> list[Row]:
    """The first, further ones, the `count`-th, the undo of a folder, and the memory of restic."""
    rows: dict[str, dict[str, list[float]]] = {}

    def note(row: str, who: str, value: float) -> None:
        rows.setdefault(row, {AGENT: [], RESTIC: []})[who].append(value)

    with make_volume(new=True) as volume:
        _fill(volume)
        alone = Alone(volume.path.parent / "alone", volume)
        note("first", RESTIC, alone.backup())

        async def work(hands: Hands) -> None:
            loop = asyncio.get_running_loop()
            for _ in range(runs):
                began = loop.time()
                await hands.keeper.before_sleep(BUDGET)
                note("sleep", AGENT, loop.time() - began)
            assert not hands.keeper.repository.ledger.checkpoints, "it was to be given up"
            began = loop.time()
            with peak() as memory:
                await hands.keeper.make(Cause.HAND)
            note("first", AGENT, loop.time() - began)
            note("memory", AGENT, memory[0])
            for number in range(count):
                _change(volume)
                began = loop.time()
                with peak() as memory:
                    await hands.keeper.make(Cause.HAND)
                taken = loop.time() - began
                note("memory" if number == count - 1 else "between", AGENT, memory[0])
                if number < runs:
                    note("again", AGENT, taken)
                if number >= count - runs:
                    note("last", AGENT, taken)
            folder = os.fsencode(volume.work / "7")
            for _ in range(runs):
                shutil.rmtree(folder)
                began = loop.time()
                await hands.undo.restore(Order("latest", (folder,)))
                note("undo", AGENT, loop.time() - began)

        volume.run(work)
        for number in range(count):
            _change(volume)
            taken = alone.backup()
            if number < runs:
                note("again", RESTIC, taken)
            if number >= count - runs:
                note("last", RESTIC, taken)
        for number in range(runs):
            note("undo", RESTIC, alone.restore(volume.work / "7", number))
        note("memory", RESTIC, alone.memory)
    return [
        Row("first checkpoint of 1 GB", "s", _samples(rows["first"])),
        _within("checkpoint of 1 GB again", rows["again"], 1.5),
        Row(f"checkpoint {count} of 1 GB", "s", _samples(rows["last"])),
        _within("undo of a folder that was deleted", rows["undo"], 2.0),
        _within("sleep delayed by a checkpoint that is given up", rows["sleep"], BUDGET),
        Row(
            f"memory of restic, first and {count}th checkpoint",
            "MB",
            _samples(rows["memory"]),
            note="the agent's restic with all that it started, looked at every 20 ms",
        ),
    ]


def login_beside(contender: Contender, logins: int) -> Row:
    """A login while checkpoints of a changing gigabyte are made one after the other."""
    quiet: list[float] = []
    busy: list[float] = []
    with contender.running() as ready:
        _over_ssh(contender, _FILL)
        _over_ssh(contender, f"{contender.command[0]} checkpoint")
        for _ in range(2):  # in turns: this computer's speed varies
            quiet += [timed_login(contender) for _ in range(logins // 2)]
            loop = subprocess.Popen(
                ["sh", "-c", _ENDLESS, "sh", *ready.agent_command("checkpoint")],
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                busy += [timed_login(contender) for _ in range(logins // 2)]
                assert loop.poll() is None, "a checkpoint failed"
            finally:
                os.killpg(loop.pid, 9)
                loop.wait()
    return Row(
        "login beside checkpoints of 1 GB, made without a pause",
        "ms",
        (Samples(AGENT, tuple(busy)), Samples("quiet", tuple(quiet))),
        (Target("quiet", 1.1),),
    )


_FILL = f"""
mkdir -p /mnt/work && cd /mnt/work
for n in $(seq 60); do mkdir -p $n; head -c {SIZE * 50} /dev/urandom >$n/random
truncate -s {SIZE * 50} $n/zero; done
"""

_ENDLESS = 'while "$@"; do :; done'


def _over_ssh(contender: Contender, script: str) -> None:
    subprocess.run(contender.ssh(script), check=True, capture_output=True)


@contextmanager
def peak() -> Iterator[list[float]]:
    """The most memory (MB) that a restic below us had while the block ran."""
    found, ended = [0.0], threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            for process in descendants(os.getpid()):
                if process.command == "restic":
                    found[0] = max(found[0], _high_water(process.pid))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield found
    finally:
        ended.set()
        looking.join()


def _high_water(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def _samples(values: dict[str, list[float]]) -> tuple[Samples, ...]:
    return tuple(Samples(who, tuple(found)) for who, found in values.items() if found)


def _within(name: str, values: dict[str, list[float]], most: float) -> Row:
    return Row(name, "s", _samples(values), limits=((f"≤ {most:g} s", most, False),))


class Alone:
    """restic as a person would call it."""

    def __init__(self, folder: Path, volume: Volume) -> None:
        folder.mkdir()
        self.folder, self.volume = folder, volume
        self.memory = 0.0
        self._environ = {
            "PATH": os.environ["PATH"],
            "RESTIC_REPOSITORY": str(folder / "repo"),
            "RESTIC_PASSWORD": "a",
        }
        self._run("init")

    def backup(self) -> float:
        return self._run("backup", "--quiet", str(self.volume.work))

    def restore(self, path: Path, number: int) -> float:
        target = self.folder / f"out{number}"
        return self._run("restore", "latest", "--target", str(target), "--include", str(path))

    def _run(self, *words: str) -> float:
        began = time.monotonic()
        process = subprocess.Popen(
            ["restic", "--no-cache", *words], env=self._environ, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, words
        self.memory = max(self.memory, usage.ru_maxrss / 1024)
        return time.monotonic() - began


def _fill(volume: Volume) -> None:
    source = random.Random(1)
    for number in range(FILES):
        folder = volume.work / f"{number % 60}"
        folder.mkdir(exist_ok=True)
        # Half of it is compressible, like code.
        (folder / f"{number}").write_bytes(source.randbytes(SIZE // 2) + bytes(SIZE // 2))
    volume.give()


def _change(volume: Volume) -> None:
    for number in random.sample(range(FILES), CHANGED):
        path = volume.work / f"{number % 60}" / f"{number}"
        path.write_bytes(random.randbytes(SIZE))
