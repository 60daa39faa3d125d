"""The month's budget of hours awake, and how much of it is used."""

import time
from collections.abc import Callable

from agent.settings.current import Current
from agent.state.life import LastWord

WARN_AT = 0.8
"""The share from which on every login is told."""


class Budget:
    """Knows at a login what earlier lives used; later, `counted` says it exactly (seconds)."""

    def __init__(
        self, current: Current, before: LastWord | None, held: float | None = None
    ) -> None:
        self._current = current
        known = before.month_awake if before and before.month == this_month() else 0.0
        self._kept = known if held is None else held
        self.counted: Callable[[], float] = lambda: self._kept

    @property
    def awake(self) -> float:
        """Seconds awake in this calendar month (UTC)."""
        return self.counted()

    @property
    def used(self) -> float:
        """The used share of the budget; 0 where there is none."""
        hours = self._current.value.budget_hours
        return 0.0 if hours is None else self.awake / 3600 / hours

    @property
    def is_over(self) -> bool:
        """Nothing is left of it."""
        return self.used >= 1

    def says(self) -> str | None:
        """What a login should be told, if anything."""
        hours = self._current.value.budget_hours
        if hours is None or self.used < WARN_AT:
            return None
        return f"awake for {self.awake / 3600:.1f} h this month, of a budget of {hours:g} h."


def this_month() -> str:
    """The calendar month (UTC), as `2026-11`."""
    return time.strftime("%Y-%m", time.gmtime())
