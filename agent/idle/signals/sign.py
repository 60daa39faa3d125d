"""The interface of signals, and what they report."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Sign:
    """An observation of a signal since its last look; it counts only if `active`."""

    active: bool
    because: str


class Signal(Protocol):
    """Watches one kind of activity.

    `look` returns what happened since the last look; the first look of a signal that compares
    counters returns nothing. It may raise any error: a signal that cannot be read counts as active.
    """

    @property
    def name(self) -> str:
        """The signal's name in settings, metrics and `swarm-agent why`."""
        ...

    async def look(self, now: float, /) -> list[Sign]:
        """The observations since the last look; `now` is seconds of a clock that never steps."""
        ...
