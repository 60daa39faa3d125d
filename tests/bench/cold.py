"""A disk as slow as the root file system of a Fly.io machine: 8 MiB/s, 2,000 reads a second.

A block-I/O cgroup (version 1 or 2) limits and counts what its processes read. Before each start
the page cache is dropped; pages that another running process has mapped stay, so nothing else that
uses the same interpreter should run.
"""

import os
import subprocess
from pathlib import Path

from tests.bench.contenders import Unavailable

BYTES_PER_SECOND, READS_PER_SECOND = 8 << 20, 2000

_V1 = Path("/sys/fs/cgroup/blkio")
_V2 = Path("/sys/fs/cgroup")
_NAME = "swarm-bench"


class SlowDisk:
    """A cgroup whose processes read slowly. Raises `Unavailable` where it can't be made."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise Unavailable("only root can limit block I/O and drop caches")
        self._device = _whole_disk("/")
        try:
            self._folder = self._make()
        except OSError as error:
            raise Unavailable(f"no block-I/O cgroup can be made here ({error})") from error

    def drop_caches(self) -> None:
        """Forget every file that nobody has mapped."""
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")

    def add(self, pid: int) -> None:
        """Limit a process and all it starts."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def bytes_read(self) -> int:
        """What all processes of the cgroup have read from the disk until now."""
        if self._version == 1:
            for line in (self._folder / "blkio.throttle.io_service_bytes").read_text().splitlines():
                words = line.split()
                if words[:2] == [self._device, "Read"]:
                    return int(words[2])
            return 0
        for line in (self._folder / "io.stat").read_text().splitlines():
            device, *fields = line.split()
            if device == self._device:
                return int(dict(field.split("=") for field in fields)["rbytes"])
        return 0

    def _make(self) -> Path:
        if (_V1 / "blkio.throttle.read_bps_device").exists() or _V1.is_dir():
            self._version = 1
            folder = _V1 / _NAME
            folder.mkdir(exist_ok=True)
            for name, value in (("bps", BYTES_PER_SECOND), ("iops", READS_PER_SECOND)):
                path = folder / f"blkio.throttle.read_{name}_device"
                path.write_text(f"{self._device} {value}")
            return folder
        self._version = 2
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
