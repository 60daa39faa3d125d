"""Decides whether the machine stays awake, warns, or sleeps, from past activity and the time.

Times are seconds of one clock that never steps; the caller chooses the clock.
"""

from dataclasses import dataclass, replace
from enum import Enum

from agent import words
from agent.settings import Settings


class Cause(Enum):
    """Why the machine sleeps, in one word."""

    IDLE = "idle"
    SCAN = "scan"
    LIMIT = "limit"
    HAND = "hand"


@dataclass(frozen=True, slots=True)
class Activity:
    """When a signal was last active, and the reason in words."""

    signal: str
    at: float
    because: str


@dataclass(frozen=True, slots=True)
class Seen:
    """The input of the decision.

    `woke` is the start of this time awake. `login` and `connections` say whether since then
    anybody logged in, or only connected. `ordered` is when sleep was ordered by hand. `warned` is
    when the terminals were warned of the next sleep, or None.
    """

    woke: float
    latest: Activity
    login: bool = False
    connections: bool = False
    ordered: float | None = None
    warned: float | None = None


@dataclass(frozen=True, slots=True)
class Awake:
    """Stay awake; if nothing happens, sleep is due at `until`, and begins at `sleep_at`.

    Both are None if the machine does not sleep by itself.
    """

    until: float | None
    sleep_at: float | None
    because: str


@dataclass(frozen=True, slots=True)
class Warn:
    """Sleep is due: warn the terminals, and sleep at `sleep_at` if nothing happens."""

    sleep_at: float
    cause: Cause
    because: str


@dataclass(frozen=True, slots=True)
class Sleep:
    """Read every signal once more, and sleep if the decision is still the same."""

    cause: Cause
    because: str


Decision = Awake | Warn | Sleep


@dataclass(frozen=True, slots=True)
class _Due:
    """Sleep is due from `warn_at` on: after a warning, or at once if nobody would see one."""

    warn_at: float
    cause: Cause
    because: str
    warned: bool = True


def decide(seen: Seen, settings: Settings, now: float) -> Decision:
    """What to do at `now`."""
    due = _soonest(seen, settings)
    if due is None:
        return Awake(None, None, seen.latest.because)
    warning = settings.idle_warning if due.warned else 0
    if now < due.warn_at:
        return Awake(due.warn_at, due.warn_at + warning, seen.latest.because)
    told = max(due.warn_at, now if seen.warned is None else seen.warned)
    sleep_at = told + warning if due.warned else now
    if now >= sleep_at:
        return Sleep(due.cause, due.because)
    return Warn(sleep_at, due.cause, due.because)


def sleeps_at(decision: Decision, now: float) -> float | None:
    """When the machine will sleep if nothing happens; None if it does not sleep by itself."""
    return now if isinstance(decision, Sleep) else decision.sleep_at


def held(seen: Seen, until: float) -> Seen:
    """The same input while leases hold until then: the end of the last one counts as activity."""
    latest = seen.latest
    return replace(seen, latest=replace(latest, at=max(latest.at, until)))


def _soonest(seen: Seen, settings: Settings) -> _Due | None:
    dues = [due for due in (_idle(seen, settings), _limit(seen, settings), _order(seen)) if due]
    if settings.sleep_mode == "off" or not dues:
        return None
    return min(dues, key=lambda due: due.warn_at)


def _idle(seen: Seen, settings: Settings) -> _Due | None:
    if settings.idle_timeout is None:
        return None
    grace = seen.woke + settings.boot_grace
    if _is_unused_wake(seen, settings):
        window = min(settings.wake_window or settings.idle_timeout, settings.idle_timeout)
        because = f"woken by a connection, and nobody logged in within {words.duration(window)}"
        return _Due(max(seen.latest.at + window, grace), Cause.SCAN, because, warned=False)
    because = f"idle for {words.duration(settings.idle_timeout)}"
    return _Due(max(seen.latest.at + settings.idle_timeout, grace), Cause.IDLE, because)


def _is_unused_wake(seen: Seen, settings: Settings) -> bool:
    """Somebody's connection woke the machine, and nobody has logged in."""
    return seen.connections and not seen.login and settings.wake_window is not None


def _limit(seen: Seen, settings: Settings) -> _Due | None:
    if settings.max_awake is None:
        return None
    because = f"awake for {words.duration(settings.max_awake)}, the limit (SWARM_MAX_AWAKE)"
    limit = seen.woke + settings.max_awake - settings.idle_warning
    return _Due(max(limit, seen.woke + settings.boot_grace), Cause.LIMIT, because)


def _order(seen: Seen) -> _Due | None:
    return None if seen.ordered is None else _Due(seen.ordered, Cause.HAND, "asked for by hand")
