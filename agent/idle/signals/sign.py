"""What a signal says."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing a signal saw since its last look; it counts only if `active`."""

    active: bool
    because: str


class Signal(Protocol):
    """Looks at one kind of activity.

    `look` answers what happened since the last look (of the first look: nothing yet, for what is
    counted) and may raise whatever it meets: a signal that cannot be read counts as active.
    """

    @property
    def name(self) -> str:
        """The signal's name in settings, metrics and `swarm-agent why`."""
        ...

    async def look(self, now: float, /) -> list[Sign]:
        """What was seen since the last look, at `now` (seconds of a clock that never steps)."""
        ...
