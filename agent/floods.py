"""Reports the first events of a kind, then only counts them: an attacker can repeat them at will.

Pure: times are seconds of any steady clock.
"""

from dataclasses import dataclass

WINDOW = 60.0
"""Seconds that one count covers."""


@dataclass(slots=True)
class _Window:
    began: float
    told: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Summed:
    """`count` events of a kind were left out within `seconds`."""

    of: str
    count: int
    seconds: float


class Floods:
    """Counts events by kind; the first `told` of a kind within `WINDOW` seconds are reported."""

    def __init__(self, told: int) -> None:
        self._told = told
        self._windows: dict[str, _Window] = {}

    def admit(self, kind: str, now: float) -> bool:
        """Whether this event is reported."""
        window = self._windows.setdefault(kind, _Window(now))
        if window.told < self._told:
            window.told += 1
            return True
        window.left_out += 1
        return False

    def due(self, now: float) -> float | None:
        """Seconds until `over` has something to report; None if nothing was left out."""
        waiting = [each.began for each in self._windows.values() if each.left_out]
        return max(0.0, min(waiting) + WINDOW - now) if waiting else None

    def over(self, now: float) -> list[Summed]:
        """The counts of windows that have ended; the next event of a kind opens a new one."""
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
