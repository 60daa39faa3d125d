"""Decides when a checkpoint is due, and which ones are kept. Pure: the clock is an argument.

The monotonic clock decides when one is due. The dates of checkpoints may step: so their order is
kept separately, and the newest is never removed.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from agent.pace import doubled
from agent.settings.units import Keep

AFTER_START = 300.0
"""Seconds after the start without automatic checkpoints: the first login comes first."""

BEFORE_TURN = 600.0
"""When a coding agent's turn begins, the last checkpoint may be so many seconds old."""

RETRY = 300.0
"""Seconds after a failure until the next automatic try."""

NEVER_EVICTED = 86400.0
"""For so many seconds a checkpoint is not removed to make room for newer ones: a program that fills
the repository with noise stops new checkpoints, but cannot push out the old ones."""

CHECK_EVERY = 7 * 86400.0
FIRST_RETRY, LONGEST_RETRY = 30.0, 3600.0
STALE = 86400.0
"""Seconds without a checkpoint, while something works, after which a warning is due."""


class Cause(Enum):
    """Why a checkpoint was made."""

    HAND = "by hand"
    HOURLY = "hourly"
    SLEEP = "before sleep"
    TURN = "before an agent's turn"
    RESTORE = "before a restore"
    COMPARE = "to compare"


class Dated(Protocol):
    """A checkpoint, as the policy sees it."""

    @property
    def id(self) -> str:
        """Its id in restic."""
        ...

    @property
    def at(self) -> float:
        """When it was made, in Unix time."""
        ...

    @property
    def cause(self) -> str:
        """The value of a `Cause`."""
        ...


@dataclass(frozen=True, slots=True)
class Past:
    """The past runs, in monotonic time; None: not in this run, and unknown before."""

    started: float
    made: float | None = None
    failed: float | None = None


def is_due(past: Past, active: float, every: float | None, now: float) -> bool:
    """Whether a scheduled checkpoint is due: there was activity since the last one, long ago."""
    if every is None or now - past.started < AFTER_START or _failed_lately(past, now):
        return False
    return past.made is None or (now - past.made >= every and active > past.made)


def is_due_before_sleep(past: Past, active: float) -> bool:
    """Whether there was activity since the last checkpoint, so that one is due before a sleep."""
    return active > (-math.inf if past.made is None else past.made)


def is_due_before_turn(past: Past, now: float) -> bool:
    """Whether the last checkpoint is too old to undo the turn that begins now."""
    if _failed_lately(past, now):
        return False
    return past.made is None or now - past.made > BEFORE_TURN


def is_stale(past: Past, active: float, now: float) -> bool:
    """Whether something works, and no checkpoint has succeeded for a day."""
    since = past.started if past.made is None else past.made
    return now - since > STALE and active > since


def _failed_lately(past: Past, now: float) -> bool:
    return past.failed is not None and now - past.failed < RETRY


def is_check_due(checked: float, wall: float) -> bool:
    """Whether the last check is a week old, or in the future because the clock was set back."""
    return not 0 <= wall - checked <= CHECK_EVERY


def retry_in(failures: int) -> float:
    """Seconds until the next try to upload, after `failures` in a row."""
    return doubled(FIRST_RETRY, failures - 1, LONGEST_RETRY)


def days_behind(made: Iterable[float], uploaded: float, wall: float) -> int:
    """Whole days for which the oldest checkpoint that is not uploaded has waited.

    `made` are the dates of all checkpoints, `uploaded` the date of the newest uploaded one.
    """
    waiting = [at for at in made if at > uploaded]
    return max(0, int((wall - min(waiting)) // 86400.0)) if waiting else 0


def made_before(at: float | None, wall: float, now: float) -> float | None:
    """Monotonic time of a checkpoint of an earlier run; None if its date is in the future."""
    if at is None or at > wall:
        return None
    return now - (wall - at)


def surplus(checkpoints: Sequence[Dated], keep: Keep) -> list[str]:
    """The checkpoints that no rule keeps; `checkpoints` in the order in which they were made.

    Kept are the latest of each of the last hours, days and weeks (UTC), the newest one, and the
    latest ones made by hand, as many as `keep.hourly`.
    """
    kept = {each.id for each in checkpoints[-1:]}
    by_hand = [each.id for each in checkpoints if each.cause == Cause.HAND.value]
    kept |= set(by_hand[max(0, len(by_hand) - keep.hourly) :])
    for count, period in (
        (keep.hourly, "%Y-%m-%d %H"),
        (keep.daily, "%Y-%m-%d"),
        (keep.weekly, "%G-%V"),
    ):
        kept |= _latest_of_each(checkpoints, count, _namer(period))
    return [each.id for each in checkpoints if each.id not in kept]


def evictable(checkpoints: Sequence[Dated], wall: float) -> list[str]:
    """What may be removed if the repository is too large, in this order; never the newest.

    First those older than a day, the oldest first; then those of the last day except the oldest.
    """
    rest = checkpoints[:-1]
    old = [each for each in rest if wall - each.at > NEVER_EVICTED]
    recent = [each for each in rest if wall - each.at <= NEVER_EVICTED]
    return [each.id for each in (*old, *recent[1:])]


def _namer(period: str) -> Callable[[float], str]:
    return lambda at: time.strftime(period, time.gmtime(at))


def _latest_of_each(
    checkpoints: Iterable[Dated], count: int, name: Callable[[float], str]
) -> set[str]:
    latest: dict[str, Dated] = {}
    for each in checkpoints:
        latest[name(each.at)] = each
    newest = sorted(latest.values(), key=lambda each: each.at)
    return {each.id for each in newest[len(newest) - count :]} if count else set()
