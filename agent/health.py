"""The present problems and notices of the machine, per part, as the user reads them."""

from dataclasses import dataclass

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
"""After more failures within so many seconds the agent exits, and the platform restarts it."""


STARVED = (Refusal.NO_PROCESS.value,)
"""Refusals that show a problem of the machine, not of the client."""


class Health:
    """Collects problems and notices from events. SSH can be used while `problems` is empty.

    A notice is a degradation: the latest one of its part, with its time (Unix time).
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
                self._note(event, event.part, f"crashed and was restarted: {event.problem}")
            case ErrorUnhandled():
                self._note(event, "agent", f"an unexpected error: {event.problem}")
            case AccountRefused():
                self.problems["user"] = f"sshd refuses the login account: {event.reason}"
            case StateNotKept():
                self._note(event, "volume", f"data could not be written: {event.problem}")
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
        elif "settings" not in self.notices:  # a refusal is more important
            waiting = ", ".join(event.waiting)
            self._note(event, "settings", f"waiting for swarm-agent reload: {waiting}")

    def _note(self, event: Event, part: str, says: str) -> None:
        self.notices[part] = event.at, says


@dataclass(slots=True)
class Reexecutions:
    """How often this process has re-executed. `recent` has the times of recent failures."""

    failures: int = 0
    reloads: int = 0
    latest: str = ""
    recent: tuple[float, ...] = ()

    def failed(self, problem: str, now: float) -> None:
        """Count an unexpected error at `now`, on a clock that never steps."""
        self.failures += 1
        self.latest = problem
        self.recent = (*(at for at in self.recent if now - at < WINDOW), now)

    @property
    def too_many(self) -> bool:
        """Whether re-executing does not help."""
        return len(self.recent) > MOST_FAILURES
