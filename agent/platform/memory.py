"""The memory that processes may use. Imported before the first banner, so without psutil."""

import os

_CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
"""Limits of cgroup version 2 and 1; a container sees its own group there."""


def usable_memory() -> int:
    """Bytes that all processes of this machine or container may use together."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CGROUP_LIMITS:
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            continue  # the other version is mounted, or no limit can be read
        if text.isdigit():
            limits.append(int(text))
    return min(limits)
