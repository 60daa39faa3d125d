"""Writing to the volume, if the volume is a disk of its own."""

import os
from collections.abc import Callable
from contextlib import suppress

from agent import words
from agent.idle.signals import processes
from agent.idle.signals.sign import Sign

_SECTOR = 512  # of /proc/diskstats, whatever the disk (Documentation/admin-guide/iostats.rst)
_JOURNALLED = 2
"""The disk writes our data about twice: once more in the file system's journal."""

WRITEBACK = 35.0
"""Seconds until written data is on the disk: the kernel holds it for 30 (vm.dirty_expire)."""


class DiskWrites:
    """Bytes written to a block device (`MAJOR:MINOR`) since the last look, without our own.

    The disk does not say which process wrote them. So while a checkpoint's bytes may be among
    them, the writes of each process are counted instead. `restic_ran` says when restic last ran,
    on the clock of `look`.
    """

    name = "writes"

    def __init__(
        self,
        device: str,
        threshold: float,
        restic_ran: Callable[[], float],
        ignored: tuple[str, ...] = (),
    ) -> None:
        self._device = device
        self._threshold = threshold
        self._restic_ran = restic_ran
        self._processes = processes.writes(threshold, ignored)
        self._before: int | None = None
        self._looked = 0.0

    async def look(self, now: float) -> list[Sign]:
        """One sign, if anything was written. Raises `OSError` if the disk is gone."""
        seconds, self._looked = now - self._looked, now
        # Bans are written to the volume: attackers must not keep the machine awake that way.
        written = _written_to(self._device) - _JOURNALLED * _written_by_us()
        before, self._before = self._before, written
        if self._restic_ran() + WRITEBACK >= now - seconds:
            return await self._processes.look(now)
        if before is None or written <= before or seconds <= 0:
            return []
        count = written - before
        says = f"the volume's disk ({self._device}): {words.rate(count, seconds)} written"
        return [Sign(count / seconds >= self._threshold, says)]


def disk_of(volume: str) -> str | None:
    """`MAJOR:MINOR` of the disk that holds only the volume; None if there is none.

    A bind mount or a container's named volume is a folder on a disk with other data.
    """
    mounts = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            _, _, device, root, target = line.split()[:5]
            mounts[target] = (device, root)
    device, root = mounts.get(os.path.realpath(volume), ("0:0", ""))
    if root != "/" or device.startswith("0:") or device == mounts.get("/", ("", ""))[0]:
        return None
    return device


def _written_to(device: str) -> int:
    # psutil names disks differently than mounts are named on a machine with device mapper.
    with open("/proc/diskstats", encoding="ascii") as file:
        for line in file:
            fields = line.split()
            if f"{fields[0]}:{fields[1]}" == device:
                return int(fields[9]) * _SECTOR
    raise OSError(f"the disk {device} is not in /proc/diskstats")


def _written_by_us() -> int:
    """Bytes that our threads have written; /proc/self/io would include reaped children."""
    total = 0
    for thread in os.listdir("/proc/self/task"):
        with (
            suppress(FileNotFoundError, ProcessLookupError),  # the thread has exited
            open(f"/proc/self/task/{thread}/io", encoding="ascii") as file,
        ):
            total += next(int(line.split()[1]) for line in file if line.startswith("write_bytes"))
    return total
