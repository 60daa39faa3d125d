"""The bus: delivers every event to all listeners.

Publishers do not know the listeners. A failing listener is reported and never affects the
publisher.
"""

import sys
from collections.abc import Callable

from agent.events import ConnectionClosed, ConnectionUnused, Event, ServiceSaid, SshdSaid

Listener = Callable[[Event], None]

EARLY = 500
"""The most events since the start that are kept for late listeners."""


class Bus:
    """Delivers each event to every listener, in the order of subscription."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._early: list[Event] = []

    def subscribe(self, listener: Listener, *, early: bool = False) -> None:
        """Call `listener` with every event from now on; it must not block.

        With `early` it first gets the events since the start, the first `EARLY` of them: parts
        start late, so that the first client is served before them.
        """
        if early:
            for event in self._early:
                self._deliver(event, listener)
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Stop calling `listener`."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def publish(self, event: Event) -> None:
        """Deliver the event to every listener; never raises."""
        chatter = isinstance(event, SshdSaid | ServiceSaid | ConnectionClosed | ConnectionUnused)
        if len(self._early) < EARLY and not chatter:
            self._early.append(event)
        for listener in tuple(self._listeners):
            self._deliver(event, listener)

    @staticmethod
    def _deliver(event: Event, listener: Listener) -> None:
        try:
            listener(event)
        except Exception as error:
            # The log may be the failing listener, so write to stderr.
            sys.stderr.write(f"swarm-agent: {event.name} not delivered: {error!r}\n")
