"""What the computer itself says: memory, the volume's space, the cores' time."""

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of a file system or of memory, and how many of them are free."""

    size: int
    free: int


NOTHING = Space(0, 0)


def memory_space() -> Space:
    """The machine's memory; a container sees its host's."""
    memory = psutil.virtual_memory()
    return Space(memory.total, memory.available)


def volume_space(path: str) -> Space:
    """The volume's size, and what the login user can still write; nothing where it is missing."""
    try:
        usage = psutil.disk_usage(path)
    except OSError:
        return NOTHING
    return Space(usage.total, usage.free)


def cpu_busy() -> float:
    """Seconds of CPU that all cores together have used since the kernel's boot."""
    spent = psutil.cpu_times()
    return spent.user + spent.nice + spent.system + spent.irq + spent.softirq + spent.steal
