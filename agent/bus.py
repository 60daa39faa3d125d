"""The bus: hands every event to its subscribers.

The spine publishes and knows nobody who listens. A listener that fails is reported and never costs
the publisher anything.
"""

import sys
from collections.abc import Callable

from agent.events import ConnectionClosed, ConnectionUnused, Event, ServiceSaid, SshdSaid

Listener = Callable[[Event], None]

EARLY = 500
"""Events since the start that are kept for listeners who come late."""


class Bus:
    """Hands each event to every listener, in the order they subscribed."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._early: list[Event] = []

    def subscribe(self, listener: Listener, *, early: bool = False) -> None:
        """Call `listener` with every event from now on; it must not block.

        With `early` it hears first what happened since the start: parts come late, so that the
        first client is served before them. After `EARLY` events the rest of those is not kept.
        """
        if early:
            for event in self._early:
                self._deliver(event, listener)
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Call `listener` no longer."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def publish(self, event: Event) -> None:
        """Tell every listener; never raises."""
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
            # The log may be the listener that failed: stderr is what is left.
            sys.stderr.write(f"swarm-agent: {event.name} not delivered: {error!r}\n")
