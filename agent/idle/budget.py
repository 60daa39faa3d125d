"""The monthly budget of hours awake, and how much of it is used."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.settings.current import Current
from agent.state.runs import LastWord

WARN_AT = 0.8
"""From this share on, every login sees a warning."""


@dataclass(slots=True)
class BudgetRecord:
    """Seconds awake in this calendar month (UTC), as they were last counted."""

    month_awake: float


class Budget:
    """Starts from the seconds that earlier runs used, until a counter knows them exactly."""

    def __init__(self, record: BudgetRecord, current: Current) -> None:
        self._record = record
        self._current = current
        self._counted: Callable[[], float] = lambda: record.month_awake

    def count_with(self, counted: Callable[[], float]) -> None:
        """From now on, get the seconds awake in this calendar month from `counted`."""
        self._counted = counted

    @property
    def awake(self) -> float:
        """Seconds awake in this calendar month (UTC)."""
        self._record.month_awake = self._counted()
        return self._record.month_awake

    @property
    def used(self) -> float:
        """The used share of the budget; 0 without a budget."""
        hours = self._current.value.budget_hours
        return 0.0 if hours is None else self.awake / 3600 / hours

    @property
    def is_over(self) -> bool:
        """Whether it is used up."""
        return self.used >= 1

    def says(self) -> str | None:
        """The warning for a login, if any."""
        hours = self._current.value.budget_hours
        if hours is None or self.used < WARN_AT:
            return None
        return f"awake for {self.awake / 3600:.1f} h this month, of a budget of {hours:g} h."


def month_awake(before: LastWord | None) -> float:
    """Seconds awake in this calendar month, as the previous run left them."""
    return before.month_awake if before and before.month == this_month() else 0.0


def this_month() -> str:
    """The calendar month (UTC), as `2026-11`."""
    return time.strftime("%Y-%m", time.gmtime())
