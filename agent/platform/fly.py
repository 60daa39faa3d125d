"""Fly.io as seen from inside a machine, through its environment (fly.io/docs/machines)."""

from collections.abc import Mapping
from dataclasses import dataclass

SUSPEND_LIMIT = 2 << 30
"""The most memory in bytes with which a machine can be suspended; the docs give two figures."""


class ApiError(Exception):
    """The Machines API refused, or did not answer; the message has the reason."""


@dataclass(frozen=True, slots=True)
class FlyMachine:
    """This machine on Fly.io."""

    app: str
    machine: str
    api: str
    memory: int | None
    """Bytes, as bought."""

    @classmethod
    def here(cls, environ: Mapping[str, str], api: str) -> "FlyMachine | None":
        """The machine with this environment; None outside Fly.io."""
        app, machine = environ.get("FLY_APP_NAME"), environ.get("FLY_MACHINE_ID")
        megabytes = environ.get("FLY_VM_MEMORY_MB", "")
        memory = int(megabytes) << 20 if megabytes.isdecimal() else None
        return cls(app, machine, api, memory) if app and machine else None

    def unfit_to_suspend(self) -> str | None:
        """Why this machine should be stopped rather than suspended; None if it qualifies."""
        if self.memory is None:
            return "its memory size is unknown"
        if self.memory > SUSPEND_LIMIT:
            return f"it has {self.memory >> 20} MB of memory, more than {SUSPEND_LIMIT >> 20}"
        import psutil  # only needed for a sleep

        return "it has swap" if psutil.swap_memory().total else None
