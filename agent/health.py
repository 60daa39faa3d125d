"""What is wrong with the machine now, per part, in the words the user reads."""

from dataclasses import dataclass, replace

from agent.access.admission import Refusal
from agent.events import (
    AccountRefused,
    CheckpointFailed,
    CheckpointMade,
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

    def hear(self, event: Event) -> None:  # noqa: PLR0912  # one case an event
        """Note what an event says about the machine's health."""
        match event:
            case Trouble():
                self.problems[event.part] = event.problem
            case Notice():
                self._note(event, event.part, event.notice)
            case PartFailed():
                self._note(event, event.part, f"crashed and was started again: {event.problem}")
            case ErrorUnhandled():
                self._note(event, "agent", f"an error that nobody foresaw: {event.problem}")
            case AccountRefused():
                self.problems["user"] = f"sshd refuses the login account: {event.reason}"
            case StateNotKept():
                self._note(event, "volume", f"something is not kept: {event.problem}")
            case StateKept():
                self.notices.pop("volume", None)
            case ConnectionsRefused() if event.reason in STARVED:
                self._note(event, "gate", f"{event.reason}: {event.detail}")
            case ListenerPaused():
                self._note(event, "listener", event.problem)
            case EgressUnresolved():
                self._note(event, "egress", f"names without an address: {', '.join(event.names)}")
            case CheckpointFailed() | CheckpointMade():
                self._hear_of_checkpoints(event)
            case SettingsRefused() | SettingsChanged():
                self._hear_of_settings(event)
            case _:
                pass

    def _hear_of_checkpoints(self, event: CheckpointFailed | CheckpointMade) -> None:
        if isinstance(event, CheckpointFailed):
            self._note(event, "checkpoints", f"not made: {event.problem}")
        elif not event.unread:
            self.notices.pop("checkpoints", None)

    def _hear_of_settings(self, event: SettingsRefused | SettingsChanged) -> None:
        if isinstance(event, SettingsRefused):
            self._note(event, "settings", f"not in force: {event.problem}")
        elif not event.waiting:
            self.notices.pop("settings", None)
        elif "settings" not in self.notices:  # what was refused says more
            waiting = ", ".join(event.waiting)
            self._note(event, "settings", f"waiting for swarm-agent reload: {waiting}")

    def _note(self, event: Event, part: str, says: str) -> None:
        self.notices[part] = event.at, says


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
