"""A disk as slow as the root file system of a Fly.io machine: 8 MiB/s, 2,000 reads a second.

A block-I/O cgroup (version 1 or 2) limits and counts what its processes read. Before each start
the page cache is dropped. Two things make a start too fast, and `SlowDisk.start` refuses both: a
program that stays in memory because another process has it mapped, and another process that reads
at full speed, during the start, what the contender is about to need.
"""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contenders import Unavailable

BYTES_PER_SECOND, READS_PER_SECOND = 8 << 20, 2000

READ_BY_OTHERS = 200_000
"""Bytes. A quiet machine reads none; a process that starts meanwhile reads megabytes."""

STILL_CACHED = 0.1
"""The part of a program that may be in memory: others share a few of its pages for good reasons."""

_V1 = Path("/sys/fs/cgroup/blkio")
_V2 = Path("/sys/fs/cgroup")
_NAME = "swarm-bench"


class NotCold(Exception):
    """A start that must not count; the message says who disturbed it."""


@dataclass(frozen=True)
class Start:
    """One cold start."""

    seconds: float
    bytes_read: int


@contextmanager
def slow_disk() -> Iterator["SlowDisk"]:
    """A slow disk that leaves no cgroup behind. Raises `Unavailable` if it cannot be created."""
    disk = SlowDisk()
    try:
        yield disk
    finally:
        disk.remove()


class SlowDisk:
    """A cgroup whose processes read slowly."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise Unavailable("only root can limit block I/O and drop caches: run it with sudo")
        self._device = _whole_disk("/")
        try:
            self._folder = self._make()
        except OSError as error:
            raise Unavailable(f"no block-I/O cgroup can be made here ({error})") from error

    def start(self, pid: int, programs: Sequence[Path], measure: Callable[[], float]) -> Start:
        """Make `pid` and all it starts read slowly, drop the caches, and time a start.

        Raises `NotCold` if another process helped.
        """
        self.add(pid)
        self.drop_caches()
        for program in programs:
            if cached(program) > STILL_CACHED:
                raise NotCold(f"{program} stayed in memory: another process is using it")
        before, before_all = self.bytes_read(), self._read_by_all()
        seconds = measure()
        own = self.bytes_read() - before
        others = self._read_by_all() - before_all - own
        if others > READ_BY_OTHERS:
            raise NotCold(f"other processes read {others / 1e6:.1f} MB from the disk meanwhile")
        return Start(seconds, own)

    def remove(self) -> None:
        """Remove the cgroup; its processes have exited."""
        with suppress(OSError):
            self._folder.rmdir()

    def drop_caches(self) -> None:
        """Drop every file from memory that no process has mapped."""
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")

    def add(self, pid: int) -> None:
        """Limit a process and all its descendants."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def bytes_read(self) -> int:
        """Bytes that all processes of the cgroup have read from the disk."""
        if self._version == 1:
            for line in (self._folder / "blkio.throttle.io_service_bytes").read_text().splitlines():
                words = line.split()
                if words[:2] == [self._device, "Read"]:
                    return int(words[2])
            return 0
        for line in (self._folder / "io.stat").read_text().splitlines():
            device, *fields = line.split()
            if device == self._device:
                counters = dict(field.split("=") for field in fields)
                return int(counters.get("rbytes", "0"))  # a disk not used yet has no counters
        return 0

    def _read_by_all(self) -> int:
        """Bytes that all processes have read from the disk, which counts sectors of 512 bytes."""
        return int(Path("/sys/dev/block", self._device, "stat").read_text().split()[2]) * 512

    def _make(self) -> Path:
        if _V1.is_dir():
            self._version = 1
            folder = _V1 / _NAME
            folder.mkdir(exist_ok=True)
            for name, value in (("bps", BYTES_PER_SECOND), ("iops", READS_PER_SECOND)):
                path = folder / f"blkio.throttle.read_{name}_device"
                path.write_text(f"{self._device} {value}")
            return folder
        self._version = 2
        # Read first: if this is not a cgroup of version 2, writing would only create plain files.
        if "io" not in (_V2 / "cgroup.controllers").read_text().split():
            raise Unavailable(f"{_V2} has no io controller: enable it, or mount blkio at {_V1}")
        (_V2 / "cgroup.subtree_control").write_text("+io")
        folder = _V2 / _NAME
        folder.mkdir(exist_ok=True)
        limits = f"{self._device} rbps={BYTES_PER_SECOND} riops={READS_PER_SECOND}"
        (folder / "io.max").write_text(limits)
        return folder


def cached(path: Path) -> float:
    """The part of a file that is in memory, 0 to 1 (fincore(1))."""
    command = ["fincore", "-b", "-n", "-o", "RES,SIZE", str(path)]
    resident, size = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.split()
    return int(resident) / int(size)


def _whole_disk(path: str) -> str:
    device = os.stat(path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    folder = Path("/sys/dev/block", name)
    if not folder.exists():
        raise Unavailable(f"the file system of {path} is on no block device (overlay, tmpfs?)")
    if (folder / "partition").exists():
        # Limits hold for whole disks.
        return (folder.resolve().parent / "dev").read_text().strip()
    return name
