"""What the computer itself says: the volume's space, the cores' time."""

import os

from agent.platform.memory import Space

NOTHING = Space(0, 0)


def volume_space(path: str) -> Space:
    """The volume's size, and what the login user can still write; nothing where it is missing."""
    try:
        status = os.statvfs(path)
    except OSError:
        return NOTHING
    return Space(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize)


def cpu_busy() -> float:
    """Seconds of CPU that all cores together have used since the kernel's boot (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(
            int, file.readline().split()[1:9]
        )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
