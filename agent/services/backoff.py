"""When a service that ended restarts. Pure: times are seconds of any steady clock."""

from dataclasses import dataclass

from agent.pace import doubled
from agent.services.definition import Restart, Service


@dataclass(frozen=True, slots=True)
class Again:
    """Restart it after `delay` seconds, for the `number`-th time in a row."""

    delay: float
    number: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It ended too often in a row."""

    restarts: int


@dataclass(frozen=True, slots=True)
class Over:
    """It ended and does not restart; `failed` if it ended with a failure."""

    failed: bool


class Backoff:
    """Counts the restarts of one service; a run of `stable` seconds forgets them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.restarts = 0

    def ended(self, *, failed: bool, ran: float) -> Again | GiveUp | Over:
        """What to do after it ended, having been ready for `ran` seconds."""
        service = self._service
        wanted = service.restart is Restart.ALWAYS or (
            service.restart is Restart.ON_FAILURE and failed
        )
        if not wanted or (service.oneshot and not failed):
            return Over(failed)
        if ran >= service.stable:
            self.restarts = 0
        if self.restarts >= service.max_restarts:
            return GiveUp(self.restarts)
        delay = doubled(service.backoff, self.restarts, service.backoff_max)
        self.restarts += 1
        return Again(delay, self.restarts)
