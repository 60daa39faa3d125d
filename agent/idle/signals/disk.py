"""Writing to the volume, where the volume is a disk of its own."""

import os
from collections.abc import Callable
from contextlib import suppress

from agent import words
from agent.idle.signals import processes
from agent.idle.signals.sign import Sign

_SECTOR = 512  # of /proc/diskstats, whatever the disk (Documentation/admin-guide/iostats.rst)
_JOURNALLED = 2
"""What we write goes to the disk about twice: the file system's journal has it too."""

WRITEBACK = 35.0
"""Seconds until what was written is on the disk: the kernel keeps it for 30 (vm.dirty_expire)."""


class DiskWrites:
    """Bytes written to a block device (`MAJOR:MINOR`) since the last look, by all but us.

    The disk does not say whose bytes they are. So for as long as those of a checkpoint may be among
    them, each process is asked what it has written instead. `restic_ran` says when restic last ran,
    in the time of `look`.
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
        """One sign, when anything was written. Raises `OSError` when the disk is gone."""
        seconds, self._looked = now - self._looked, now
        # Bans are kept on the volume: attackers must not keep the machine awake by them.
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
    """`MAJOR:MINOR` of the disk that is the volume and nothing else; None where there is none.

    A bind mount or a container's named volume is a folder of a disk that others also write to.
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
    # psutil counts disks by name, which a machine with device mapper gives to none of its mounts.
    with open("/proc/diskstats", encoding="ascii") as file:
        for line in file:
            fields = line.split()
            if f"{fields[0]}:{fields[1]}" == device:
                return int(fields[9]) * _SECTOR
    raise OSError(f"the disk {device} is not in /proc/diskstats")


def _written_by_us() -> int:
    """What our threads have written; /proc/self/io would add what the children we reaped wrote."""
    total = 0
    for thread in os.listdir("/proc/self/task"):
        with (
            suppress(FileNotFoundError, ProcessLookupError),  # it has ended
            open(f"/proc/self/task/{thread}/io", encoding="ascii") as file,
        ):
            total += next(int(line.split()[1]) for line in file if line.startswith("write_bytes"))
    return total
