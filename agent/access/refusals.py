"""Refused connections: the first of a kind is told at once, a flood is summed up."""

from collections import Counter

from agent.access.admission import Refusal
from agent.bus import Bus
from agent.events import ConnectionsRefused

WINDOW = 60.0
"""Seconds in which refusals for one reason make one line."""

QUIET = frozenset({Refusal.NO_HEADER})
"""Health checks and port scans close before a word: counted, never told."""


class Refusals:
    """Counts by reason (`total`), and tells the log without flooding it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.total: Counter[Refusal] = Counter()
        self._since: dict[Refusal, float] = {}
        self._untold: Counter[Refusal] = Counter()

    def add(self, refusal: Refusal, client: str, detail: str, now: float) -> None:
        """One more connection was refused."""
        self.total[refusal] += 1
        if refusal in QUIET:
            return
        if refusal in self._since:
            self._untold[refusal] += 1
        else:
            self._since[refusal] = now
            self._tell(refusal, 1, client, detail)

    def flush(self, now: float) -> None:
        """Tell what came together in windows that are over."""
        for refusal, since in list(self._since.items()):
            if now - since < WINDOW:
                continue
            count = self._untold.pop(refusal, 0)
            if count:
                self._since[refusal] = now
                self._tell(refusal, count, "several", f"in the last {now - since:.0f} s")
            else:
                del self._since[refusal]

    def _tell(self, refusal: Refusal, count: int, client: str, detail: str) -> None:
        self._bus.publish(
            ConnectionsRefused(reason=refusal.value, count=count, client=client, detail=detail)
        )
