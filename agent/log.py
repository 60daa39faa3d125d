"""The log: one line an event on stdout, JSON or for people.

Writing happens in a thread of its own, because a reader that stopped reading stdout must not
stop SSH. That thread also imports structlog, after the client who woke the machine has been
served: until `start`, events wait in memory with the time at which they happened.
"""

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping

from agent.events import Event, LinesDropped, LinesSummed
from agent.floods import WINDOW, Floods
from agent.init.children import leave_signals

CAPACITY = 20_000
"""Events that may wait for a slow reader; later ones are dropped and counted."""

_SEVERITY = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Render = Callable[[MutableMapping[str, object]], str]


class Log:
    """Subscribe `write` to the bus; call `start` once and `close` at the end."""

    def __init__(self, style: str, level: str, line_limit: int) -> None:
        self._human = style == "human" or (style == "auto" and sys.stdout.isatty())
        self._threshold = _SEVERITY[level]
        self._limit = line_limit
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._dropped = 0
        self.lost = 0
        """Lines that nobody read in time."""
        self.lost_at = 0.0
        """When the latest of them was lost (Unix time)."""
        self._thread: threading.Thread | None = None

    def write(self, event: Event) -> None:
        """Queue one event; never blocks."""
        if _SEVERITY[event.level] < self._threshold:
            return
        if self._events.qsize() >= CAPACITY:
            self._dropped += 1
            self.lost += 1
            self.lost_at = event.at
            return
        self._events.put(event)

    def start(self) -> None:
        """Begin to write; what was queued comes first."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()

    def close(self, timeout: float = 2.0) -> None:
        """Write what is queued, for at most `timeout` seconds: a blocked stdout may be stuck."""
        self.start()
        self._events.put(None)
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        leave_signals()
        render = _human_renderer() if self._human else _json_renderer()
        floods = Floods()
        ended = False
        while not ended:
            for event in self._next(floods):
                if event is None:
                    ended = True
                    continue
                try:
                    sys.stdout.write(render(as_record(event, self._limit)))
                except (OSError, ValueError):
                    # Nobody will ever read stdout again; SSH goes on without a log.
                    return
            try:
                sys.stdout.flush()
            except (OSError, ValueError):
                return

    def _next(self, floods: Floods) -> Iterator[Event | None]:
        """The next event to write, and what there is to say about floods and lost lines."""
        ending = False
        try:
            event = self._events.get(timeout=floods.due(time.monotonic()))
        except queue.Empty:
            pass
        else:
            ending = event is None
            if event is None or not event.summed or floods.admit(event.name, time.monotonic()):
                yield event
        # At the end there is no later window to tell it in.
        late = WINDOW if ending else 0.0
        for summed in floods.over(time.monotonic() + late):
            yield LinesSummed(of=summed.of, lines=summed.lines, seconds=summed.seconds)
        if self._dropped:
            lost, self._dropped = self._dropped, 0
            yield LinesDropped(lines=lost)


def as_record(event: Event, limit: int) -> dict[str, object]:
    """The fields of a log line, in the order in which people look for them."""
    record: dict[str, object] = {
        "timestamp": timestamp(event.at),
        "level": event.level,
        "event": event.name,
    }
    for name in event.fields:
        record[name] = _shorten(getattr(event, name), limit)
    return record


def timestamp(at: float) -> str:
    """A wall-clock time as RFC 3339, UTC, milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    return f"{whole}.{int(at % 1 * 1000):03d}Z"


def _shorten(value: object, limit: int) -> object:
    if isinstance(value, str) and len(value) > limit:
        return value[:limit] + "…(cut)"
    if isinstance(value, float):
        return round(value, 6)
    return value


def _json_renderer() -> Render:
    import structlog

    to_json = structlog.processors.JSONRenderer()

    def render(record: MutableMapping[str, object]) -> str:
        text = to_json(None, "", record)
        return (text if isinstance(text, str) else text.decode()) + "\n"

    return render


def _human_renderer() -> Render:
    import structlog

    console = structlog.dev.ConsoleRenderer(
        colors=sys.stdout.isatty(), sort_keys=False, pad_event_to=24
    )

    def render(record: MutableMapping[str, object]) -> str:
        return console(None, "", _without_control_characters(record)) + "\n"

    return render


def _without_control_characters(record: Mapping[str, object]) -> dict[str, object]:
    return {
        key: value.encode("unicode_escape").decode("ascii")
        if isinstance(value, str) and not value.isprintable()
        else value
        for key, value in record.items()
    }
