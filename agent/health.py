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
    SettingsChanged,
    SettingsRefused,
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
        match event:
            case Trouble():
                self.problems[event.part] = event.problem
            case StateKept():
                self.notices.pop("volume", None)
            case SettingsChanged(waiting=()):
                self.notices.pop("settings", None)
            case SettingsChanged() if "settings" in self.notices:
                return  # what was refused says more
            case _:
                notice = _notice(event)
                if notice is not None:
                    part, says = notice
                    self.notices[part] = event.at, says


def _notice(event: Event) -> tuple[str, str] | None:
    """The part, and what is not as it could be."""
    match event:
        case Notice():
            return event.part, event.notice
        case PartFailed():
            return event.part, f"crashed and was started again: {event.problem}"
        case ErrorUnhandled():
            return "agent", f"an error that nobody foresaw: {event.problem}"
        case StateNotKept():
            return "volume", f"something is not kept: {event.problem}"
        case ConnectionsRefused() if event.reason in STARVED:
            return "gate", f"{event.reason}: {event.detail}"
        case ListenerPaused():
            return "listener", event.problem
        case EgressUnresolved():
            return "egress", f"names without an address: {', '.join(event.names)}"
        case SettingsRefused():
            return "settings", f"not in force: {event.problem}"
        case SettingsChanged():
            return "settings", f"waiting for swarm-agent reload: {', '.join(event.waiting)}"
        case _:
            return None


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
