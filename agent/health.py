"""What is wrong with the machine now, per part, in the words the user reads."""

from dataclasses import dataclass, replace

from agent.access.admission import Refusal
from agent.events import (
    ConnectionsRefused,
    EgressUnresolved,
    ErrorUnhandled,
    Event,
    ListenerPaused,
    Notice,
    PartFailed,
    StateKept,
    StateNotKept,
    Trouble,
)

MOST_FAILURES = 5
WINDOW = 60.0
"""More failures than this within so many seconds are for the platform to mend: the agent ends."""


STARVED = (Refusal.NO_PROCESS.value,)
"""Refusals that say something of the machine, not of the client."""


class Health:
    """Collects from events. SSH can be used while `problems` is empty; `notices` cost less.

    A notice is the latest of its part, with the time (Unix time) at which it came.
    """

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.notices: dict[str, tuple[float, str]] = {}

    def hear(self, event: Event) -> None:
        """Note what an event says about the machine's health."""
        if isinstance(event, Trouble):
            self.problems[event.part] = event.problem
        elif isinstance(event, Notice):
            self.notices[event.part] = event.at, event.notice
        elif isinstance(event, PartFailed):
            self.notices[event.part] = event.at, f"crashed and was started again: {event.problem}"
        elif isinstance(event, ErrorUnhandled):
            self.notices["agent"] = event.at, f"an error that nobody foresaw: {event.problem}"
        elif isinstance(event, StateNotKept):
            self.notices["volume"] = event.at, f"something is not kept: {event.problem}"
        elif isinstance(event, StateKept):
            self.notices.pop("volume", None)
        elif isinstance(event, ConnectionsRefused) and event.reason in STARVED:
            self.notices["gate"] = event.at, f"{event.reason}: {event.detail}"
        elif isinstance(event, ListenerPaused):
            self.notices["listener"] = event.at, event.problem
        elif isinstance(event, EgressUnresolved):
            names = ", ".join(event.names)
            self.notices["egress"] = event.at, f"names without an address: {names}"


@dataclass(frozen=True, slots=True)
class Reexecutions:
    """How often this process has become a new agent. `recent` is when it last failed, each time."""

    failures: int = 0
    reloads: int = 0
    latest: str = ""
    recent: tuple[float, ...] = ()

    def failed(self, problem: str, now: float) -> "Reexecutions":
        """With an error at the top of the agent, at `now` on a clock that never steps."""
        recent = tuple(at for at in self.recent if now - at < WINDOW)
        return replace(self, failures=self.failures + 1, latest=problem, recent=(*recent, now))

    def reloaded(self) -> "Reexecutions":
        """With one more that was asked for."""
        return replace(self, reloads=self.reloads + 1)

    @property
    def too_many(self) -> bool:
        """Re-executing does not help."""
        return len(self.recent) > MOST_FAILURES
