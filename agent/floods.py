"""What the log sums up instead of repeating: events of which an attacker can make any number.

Pure: it is told the time (seconds of any steady clock).
"""

from dataclasses import dataclass

LINES = 60
"""Lines of one event within `WINDOW` that are written; the rest of them is counted."""

WINDOW = 60.0


@dataclass(slots=True)
class _Window:
    began: float
    lines: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Summed:
    """So many lines of an event were left out within so many seconds."""

    of: str
    lines: int
    seconds: float


class Floods:
    """Counts the lines of each event."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def admit(self, event: str, now: float) -> bool:
        """Whether this line of an event is written."""
        window = self._windows.setdefault(event, _Window(now))
        window.lines += 1
        if window.lines <= LINES:
            return True
        window.left_out += 1
        return False

    def due(self, now: float) -> float | None:
        """Seconds until `over` has something to tell; None when it has not."""
        waiting = [each.began for each in self._windows.values() if each.left_out]
        return max(0.0, min(waiting) + WINDOW - now) if waiting else None

    def over(self, now: float) -> list[Summed]:
        """What was left out in windows that are over now; they begin anew."""
        ended = {
            event: window for event, window in self._windows.items() if now - window.began >= WINDOW
        }
        for event in ended:
            del self._windows[event]
        return [
            Summed(event, window.left_out, now - window.began)
            for event, window in ended.items()
            if window.left_out
        ]
