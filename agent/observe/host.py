"""Figures of the host: memory, the volume's space, CPU time."""

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Space:
    """The size of a file system or of memory, and its free part, in bytes."""

    size: int
    free: int


NOTHING = Space(0, 0)


def memory_space() -> Space:
    """The machine's memory; a container sees its host's."""
    memory = psutil.virtual_memory()
    return Space(memory.total, memory.available)


def volume_space(path: str) -> Space:
    """The volume's size, and how much the login user can still write; 0 if it is missing."""
    try:
        usage = psutil.disk_usage(path)
    except OSError:
        return NOTHING
    return Space(usage.total, usage.free)


def cpu_busy() -> float:
    """CPU seconds of all cores together since the kernel booted."""
    spent = psutil.cpu_times()
    return spent.user + spent.nice + spent.system + spent.irq + spent.softirq + spent.steal
