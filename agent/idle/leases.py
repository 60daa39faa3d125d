"""Leases: the machine must stay awake until a time, or while a process runs.

Pure: every method takes the time (seconds of a clock that never steps). Whether a process still
runs is a function that the owner hands in.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

MOST = 100
"""Most leases at one time; more would be a script's mistake."""

_NAME = re.compile(r"[\w.@:+-]{1,64}", re.ASCII)


class LeaseError(ValueError):
    """A lease that cannot be taken; the message says what would be right."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a lease by running: its id, and its start in clock ticks since boot."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Keeps the machine awake until `until`, and not longer than its holder runs.

    `because` says what it is for, where its name does not.
    """

    name: str
    since: float
    until: float
    holder: Holder | None = None
    because: str = ""


class Leases:
    """The leases that hold now, by name; taking one again replaces it."""

    def __init__(self, runs: Callable[[Holder], bool]) -> None:
        self._runs = runs
        self._held: dict[str, Lease] = {}

    def take(self, lease: Lease) -> None:
        """Hold a lease. Raises `LeaseError`."""
        if not _NAME.fullmatch(lease.name):
            raise LeaseError(
                f"{lease.name!r} is no name for a lease: 1 to 64 letters, digits and . @ : + _ -"
            )
        if lease.name not in self._held and len(self._held) >= MOST:
            raise LeaseError(f"there are {MOST} leases already: swarm-agent awake --list")
        self._held[lease.name] = lease

    def release(self, name: str) -> Lease | None:
        """End a lease; None if no lease has that name."""
        return self._held.pop(name, None)

    def expire(self, now: float) -> list[Lease]:
        """End and return the leases whose time is over or whose process has ended."""
        over = [lease for lease in self._held.values() if not self._holds(lease, now)]
        for lease in over:
            del self._held[lease.name]
        return over

    def active(self, now: float) -> list[Lease]:
        """The leases that hold at `now`, the longest first."""
        held = [lease for lease in self._held.values() if self._holds(lease, now)]
        return sorted(held, key=lambda lease: -lease.until)

    def _holds(self, lease: Lease, now: float) -> bool:
        return lease.until > now and (lease.holder is None or self._runs(lease.holder))
