"""The machine's memory."""

from dataclasses import dataclass

_CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
"""Of version 2 and version 1; a container sees its own group's there."""


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of a file system or of memory, and how many of them are free."""

    size: int
    free: int


def memory_space() -> Space:
    """The machine's memory (proc_meminfo(5)); a container sees its host's."""
    values = {}
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            values[name] = int(rest.split()[0]) << 10
    return Space(values["MemTotal"], values["MemAvailable"])


def usable_memory() -> int:
    """Bytes that the processes of this machine or container may have together."""
    limits = [memory_space().size]
    for path in _CGROUP_LIMITS:
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            continue  # the other version, or no limit can be read
        if text.isdigit():
            limits.append(int(text))
    return min(limits)
