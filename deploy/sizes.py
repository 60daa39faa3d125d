"""The machine sizes that Fly.io sells, and the memory each can have.

Numbers as in the platform's public client library (fly-go, machine_types.go).
"""

import msgspec

from agent.platform import fly

SUSPEND_LIMIT = fly.SUSPEND_LIMIT >> 20
"""MB of memory up to which a machine can be suspended (fly.io/docs/reference/suspend-resume)."""


class Guest(msgspec.Struct, frozen=True):
    """The size of a machine."""

    cpu_kind: str = "shared"
    cpus: int = 1
    memory_mb: int = 256

    @property
    def preset(self) -> str:
        """The name of its preset."""
        return f"{'shared-cpu' if self.cpu_kind == 'shared' else self.cpu_kind}-{self.cpus}x"


class _Kind(msgspec.Struct, frozen=True):
    prefix: str
    least: int
    """MB for each CPU."""
    most: int
    step: int
    cpus: tuple[int, ...]


_KINDS = {
    "shared": _Kind("shared-cpu", 256, 2048, 256, (1, 2, 4, 6, 8)),
    "performance": _Kind("performance", 2048, 8192, 1024, (1, 2, 4, 6, 8, 10, 12, 14, 16)),
}

PRESETS = {
    f"{kind.prefix}-{cpus}x": Guest(name, cpus, cpus * kind.least)
    for name, kind in _KINDS.items()
    for cpus in kind.cpus
}


def problem(size: str, memory_mb: int) -> str:
    """Why Fly.io does not sell such a machine; empty if it does."""
    preset = PRESETS.get(size)
    if preset is None:
        return f"there is no size {size}: {', '.join(PRESETS)}"
    kind = _KINDS[preset.cpu_kind]
    most = preset.cpus * kind.most
    if not preset.memory_mb <= memory_mb <= most:
        return (
            f"{size} takes {_gb(preset.memory_mb)} to {_gb(most)} of memory, not {_gb(memory_mb)}"
        )
    if memory_mb % kind.step:
        return f"{size} takes memory in steps of {kind.step} MB"
    return ""


def _gb(memory_mb: int) -> str:
    return f"{memory_mb / 1024:g} GB"
