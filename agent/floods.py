"""Report the first, then sum up: for everything an attacker can repeat at will.

Pure: times are seconds of any steady clock.
"""

from dataclasses import dataclass

WINDOW = 60.0
"""Seconds that are summed up together."""


@dataclass(slots=True)
class _Window:
    began: float
    told: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Summed:
    """So many of a kind were left out within so many seconds."""

    of: str
    count: int
    seconds: float


class Floods:
    """Counts what happens of each kind; the first `told` of them within `WINDOW` are reported."""

    def __init__(self, told: int) -> None:
        self._told = told
        self._windows: dict[str, _Window] = {}

    def admit(self, kind: str, now: float) -> bool:
        """Whether this one is reported."""
        window = self._windows.setdefault(kind, _Window(now))
        if window.told < self._told:
            window.told += 1
            return True
        window.left_out += 1
        return False

    def due(self, now: float) -> float | None:
        """Seconds until `over` has something to tell; None when it has not."""
        waiting = [each.began for each in self._windows.values() if each.left_out]
        return max(0.0, min(waiting) + WINDOW - now) if waiting else None

    def over(self, now: float) -> list[Summed]:
        """What was left out in windows that are over now; the next of a kind opens a new one."""
        ended = {
            kind: window for kind, window in self._windows.items() if now - window.began >= WINDOW
        }
        for kind in ended:
            del self._windows[kind]
        return [
            Summed(kind, window.left_out, now - window.began)
            for kind, window in ended.items()
            if window.left_out
        ]
