"""The memory that processes may use. Read before the first banner: psutil comes later."""

import os

_CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
"""Of version 2 and version 1; a container sees its own group's there."""


def usable_memory() -> int:
    """Bytes that the processes of this machine or container may have together."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CGROUP_LIMITS:
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            continue  # the other version, or no limit can be read
        if text.isdigit():
            limits.append(int(text))
    return min(limits)
