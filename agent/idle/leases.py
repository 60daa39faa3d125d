"""Leases: the machine must stay awake until a time, or while a process runs.

Pure: every method takes the time (seconds of a clock that never steps). The owner passes in a
function that says whether a process still runs.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

MOST = 100
"""The most leases at one time; more would be a script's mistake."""

_NAME = re.compile(r"[\w.@:+-]{1,64}", re.ASCII)


class LeaseError(ValueError):
    """A lease that cannot be taken; the message says why."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a lease by running: its id, and its start in clock ticks since boot."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Keeps the machine awake until `until`, and not longer than its holder runs.

    `because` is the reason, if the name does not say it.
    """

    name: str
    since: float
    until: float
    holder: Holder | None = None
    because: str = ""


class Leases:
    """The active leases by name; taking a name again replaces its lease."""

    def __init__(self, runs: Callable[[Holder], bool]) -> None:
        self._runs = runs
        self._held: dict[str, Lease] = {}

    def take(self, lease: Lease) -> None:
        """Hold a lease. Raises `LeaseError`."""
        if not _NAME.fullmatch(lease.name):
            raise LeaseError(
                f"{lease.name!r} is not a lease name: 1 to 64 letters, digits and . @ : + _ -"
            )
        if lease.name not in self._held and len(self._held) >= MOST:
            raise LeaseError(f"there are {MOST} leases already: swarm-agent awake --list")
        self._held[lease.name] = lease

    def release(self, name: str) -> Lease | None:
        """End a lease; None if no lease has that name."""
        return self._held.pop(name, None)

    def expire(self, now: float) -> list[Lease]:
        """End and return the leases that have expired or whose process has exited."""
        over = [lease for lease in self._held.values() if not self._holds(lease, now)]
        for lease in over:
            del self._held[lease.name]
        return over

    def active(self, now: float) -> list[Lease]:
        """The leases that are active at `now`, the longest first."""
        held = [lease for lease in self._held.values() if self._holds(lease, now)]
        return sorted(held, key=lambda lease: -lease.until)

    def _holds(self, lease: Lease, now: float) -> bool:
        return lease.until > now and (lease.holder is None or self._runs(lease.holder))
