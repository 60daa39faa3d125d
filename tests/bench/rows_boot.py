"""From exec to the first SSH banner, warm and cold."""

import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.cold import SlowDisk, cached
from tests.bench.contenders import SSHD, SUPERVISORD, Contender, Prepared, Unavailable
from tests.bench.table import Row, Samples, Target

INTERPRETER = Path("/usr/bin/python3").resolve()


def warm(contenders: Sequence[Contender], runs: int) -> Row:
    """Everything is in memory."""
    values: dict[str, list[float]] = {entry.name: [] for entry in contenders}
    for number in range(runs + 1):
        for entry in contenders:
            with entry.prepared() as ready:
                seconds = _until_banner(ready)
            if number:  # the first round warms
                values[entry.name].append(seconds * 1000)
    return Row(
        "exec → SSH banner, warm",
        "ms",
        _samples(values),
        (Target(SSHD, 10), Target(SUPERVISORD, 0.15)),
    )


def cold(contenders: Sequence[Contender], runs: int) -> list[Row]:
    """Nothing is in memory, on a disk limited as Fly's root file system."""
    name = "exec → SSH banner, cold disk (8 MiB/s)"
    try:
        disk = SlowDisk()
    except Unavailable as error:
        return [Row(name, "s", note=str(error)), Row("read until then", "MB", note=str(error))]
    seconds: dict[str, list[float]] = {entry.name: [] for entry in contenders}
    read: dict[str, list[float]] = {entry.name: [] for entry in contenders}
    note = ""
    for _ in range(runs):
        for entry in contenders:
            with entry.prepared() as ready:
                disk.add(ready.pid)
                disk.drop_caches()
                if cached(INTERPRETER) > 0.1:
                    note = f"{INTERPRETER} was in memory: another process uses it; too good"
                before = disk.bytes_read()
                seconds[entry.name].append(_until_banner(ready))
                read[entry.name].append((disk.bytes_read() - before) / 1e6)
    targets = (Target(SSHD, 1.9), Target(SUPERVISORD, 0.75))
    return [
        Row(name, "s", _samples(seconds), targets, note),
        Row("read from the disk until then", "MB", _samples(read), note=note),
    ]


def _until_banner(ready: Prepared) -> float:
    began = time.monotonic()
    ready.go()
    while not ready.banner():
        time.sleep(0.001)
    return time.monotonic() - began


def _samples(values: dict[str, list[float]]) -> tuple[Samples, ...]:
    return tuple(Samples(name, tuple(numbers)) for name, numbers in values.items())
