"""Refused connections: the first of a kind is logged at once, a flood is summed up."""

from collections import Counter

from agent.access.admission import Refusal
from agent.bus import Bus
from agent.events import ConnectionsRefused
from agent.floods import Floods

QUIET = frozenset({Refusal.NO_HEADER})
"""Health checks and port scans close before sending a byte: counted, never logged."""


class Refusals:
    """Counts refusals by reason (`total`), and reports them without flooding the log."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._floods = Floods(told=1)
        self.total: Counter[Refusal] = Counter()

    def add(self, refusal: Refusal, client: str, detail: str, now: float) -> None:
        """Count a refused connection."""
        self.total[refusal] += 1
        if refusal not in QUIET and self._floods.admit(refusal.value, now):
            self._report(refusal.value, 1, client, detail)

    def flush(self, now: float) -> None:
        """Report the refusals counted in windows that are over."""
        for summed in self._floods.over(now):
            self._report(summed.of, summed.count, "several", f"in the last {summed.seconds:.0f} s")

    def _report(self, reason: str, count: int, client: str, detail: str) -> None:
        self._bus.publish(
            ConnectionsRefused(reason=reason, count=count, client=client, detail=detail)
        )
