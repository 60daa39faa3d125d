"""From exec to the first SSH banner, warm and cold."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.cold import NotCold, SlowDisk, Start, slow_disk
from tests.bench.contenders import SSHD, SUPERVISORD, WORK, Contender, Prepared, Unavailable
from tests.bench.rows_login import as_samples
from tests.bench.table import Row, Target

COLD = "exec → SSH banner, cold disk (8 MiB/s)"
COLD_BYTES = "read from the disk until then"

BANNER_DEADLINE = 60.0
QUIET_DEADLINE = 600.0
"""Seconds for which a cold start is retried while other programs use the machine."""


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
        as_samples(values),
        (Target(SSHD, 10), Target(SUPERVISORD, 0.15)),
    )


def cold(contenders: Sequence[Contender], runs: int) -> list[Row]:
    """Nothing is in memory, on a disk limited as Fly's root file system."""
    seconds: dict[str, list[float]] = {entry.name: [] for entry in contenders}
    read: dict[str, list[float]] = {entry.name: [] for entry in contenders}
    for entry in contenders:  # a host key, created once, is not part of it
        with entry.running():
            pass
    try:
        with slow_disk() as disk:
            for _ in range(runs):
                for entry in contenders:
                    start = _cold_start(entry, disk)
                    seconds[entry.name].append(start.seconds)
                    read[entry.name].append(start.bytes_read / 1e6)
    except Unavailable as error:
        return [Row(COLD, "s", note=str(error)), Row(COLD_BYTES, "MB", note=str(error))]
    targets = (Target(SSHD, 1.9), Target(SUPERVISORD, 0.75))
    return [Row(COLD, "s", as_samples(seconds), targets), Row(COLD_BYTES, "MB", as_samples(read))]


def _cold_start(contender: Contender, disk: SlowDisk) -> Start:
    """A start that no other process helped; retried while other programs use the machine."""
    end = time.monotonic() + QUIET_DEADLINE
    while True:
        with contender.prepared() as ready:
            try:
                return disk.start(ready.pid, _programs(), lambda: _until_banner(ready))
            except NotCold as error:
                reason = str(error)
        if time.monotonic() > end:
            raise Unavailable(f"never quiet enough: {reason}; stop it and run this row again")
        print(f"cold start of {contender.name} repeated: {reason}", file=sys.stderr, flush=True)
        time.sleep(5)


def _programs() -> list[Path]:
    """The programs that must not be in memory: a cached one would distort every ratio."""
    return [
        Path("/usr/sbin/sshd"),
        *Path("/usr/lib").glob("*/libcrypto.so.*"),
        Path("/usr/bin/python3").resolve(),
        (WORK / "venv" / "bin" / "python3").resolve(),
    ]


def _until_banner(ready: Prepared) -> float:
    began = time.monotonic()
    ready.go()
    while not ready.banner():
        if time.monotonic() > began + BANNER_DEADLINE:
            raise TimeoutError(f"no banner of {ready.contender.name}; see {ready.contender.log}")
        time.sleep(0.001)
    return time.monotonic() - began
