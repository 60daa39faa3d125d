"""The log: one line per event on stdout, JSON or for people, always UTF-8.

A thread writes, because a reader that stops reading stdout must not stop SSH. That thread also
imports structlog, after the client who woke the machine has been served: until `start`, events wait
in memory with the time at which they happened.

The writer never stops before the agent: if a line cannot be written, it is counted as lost, and the
next one is tried.
"""

import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from types import ModuleType

from agent import safe
from agent.events import Event, LinesDropped, LinesSummed
from agent.floods import WINDOW, Floods
from agent.init.children import leave_signals

CAPACITY, CAPACITY_BYTES = 20_000, 32 << 20
"""Events, and characters in them, that may wait for a slow reader; later events are lost.

Events that strangers and services can cause in any number may fill half of it: a flood hides
nothing else.
"""

LINES = 60
"""Lines of one kind of event that are written within `floods.WINDOW`; the rest are counted."""

BEHIND = 5.0
"""Seconds after which an unwritten event means that the log is behind."""

_STDOUT = 1
_SEVERITY = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Render = Callable[[MutableMapping[str, object]], str]


class Log:
    """Subscribe `write` to the bus; call `start` once and `close` at the end."""

    def __init__(self, style: str, level: str, line_limit: int) -> None:
        self._human = style == "human" or (style == "auto" and sys.stdout.isatty())
        self._threshold = _SEVERITY[level]
        self._limit = line_limit
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.lost_at = 0.0
        """When the latest line was lost (Unix time)."""
        # Each is changed by one thread only: the first of each pair by the publisher's thread.
        self._put, self._taken = 0, 0
        self._dropped, self._refused = 0, 0
        self._told_lost = 0
        self._writing: float | None = None
        self._thread: threading.Thread | None = None

    @property
    def lost(self) -> int:
        """Lost lines: too many waited, or stdout is closed, or its disk is full."""
        return self._dropped + self._refused

    @property
    def behind(self) -> float:
        """Seconds that the oldest line has waited for a reader; 0 if none waits."""
        writing = self._writing
        waited = 0.0 if writing is None else time.monotonic() - writing
        return waited if waited > BEHIND else 0.0

    def write(self, event: Event) -> None:
        """Queue one event; never blocks."""
        if _SEVERITY[event.level] < self._threshold:
            return
        size = _size(event)
        share = 2 if event.bulk or event.summed else 1
        waiting = self._put - self._taken + size
        if self._events.qsize() >= CAPACITY // share or waiting > CAPACITY_BYTES // share:
            self._dropped += 1
            self.lost_at = event.at
            return
        self._put += size
        self._events.put(event)

    def start(self) -> None:
        """Begin to write, starting with the queued events."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            thread.start()
            self._thread = thread

    def close(self, timeout: float = 5.0) -> None:
        """Write the queued events for at most `timeout` seconds: stdout may be blocked."""
        self._events.put(None)
        try:
            self.start()
        except RuntimeError:  # no thread can be started: write the waiting events anyway
            self._run()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        leave_signals()
        render = _human_renderer() if self._human else _json_renderer()
        floods = Floods(LINES)
        ended = False
        while not ended:
            for event in self._next(floods):
                if event is None:
                    ended = True
                else:
                    self._write_line(_line(event, self._limit, render))

    def _write_line(self, line: bytes) -> None:
        """Write it completely, however long the reader takes; count it if stdout refuses it."""
        self._writing = time.monotonic()
        left = memoryview(line)
        while left:
            try:
                left = left[os.write(_STDOUT, left) :]
            except BlockingIOError:
                # The pipe is shared: another program may have made it non-blocking.
                waiting = select.poll()
                waiting.register(_STDOUT, select.POLLOUT)
                waiting.poll()
            except OSError:
                self._refused += 1
                self.lost_at = time.time()
                break
        self._writing = None

    def _next(self, floods: Floods) -> Iterator[Event | None]:
        """The next event to write, and reports of floods and lost lines."""
        ending = False
        try:
            event = self._events.get(timeout=floods.due(time.monotonic()))
        except queue.Empty:
            pass
        else:
            ending = event is None
            if event is not None:
                self._taken += _size(event)
            if event is None or not event.summed or floods.admit(event.name, time.monotonic()):
                yield event
        # At the end no later window would report it.
        late = WINDOW if ending else 0.0
        for summed in floods.over(time.monotonic() + late):
            yield LinesSummed(of=summed.of, lines=summed.count, seconds=summed.seconds)
        lost = self.lost - self._told_lost
        if lost:
            self._told_lost += lost
            yield LinesDropped(lines=lost)


def _size(event: Event) -> int:
    """The approximate memory that an event takes while it waits."""
    values = vars(event).values()
    return 200 + sum(len(value) for value in values if isinstance(value, str))


def _line(event: Event, limit: int, render: Render) -> bytes:
    """The line of an event; if it cannot be rendered, a line that says so."""
    try:
        return render(as_record(event, limit)).encode("utf-8", "backslashreplace")
    except Exception as error:
        broken = safe.line(f"{event.name}: {type(error).__name__}: {error}")
        return f"swarm-agent: an event cannot be rendered: {broken}\n".encode()


def as_record(event: Event, limit: int) -> dict[str, object]:
    """The fields of a log line, the most useful first."""
    record: dict[str, object] = {
        "timestamp": timestamp(event.at),
        "level": event.level,
        "event": event.name,
    }
    for name in event.fields:
        record[name] = _shown(getattr(event, name), limit)
    return record


def timestamp(at: float) -> str:
    """A wall-clock time as RFC 3339, UTC, milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    return f"{whole}.{int(at % 1 * 1000):03d}Z"


def _shown(value: object, limit: int) -> object:
    if isinstance(value, str):
        return safe.lines(value if len(value) <= limit else value[:limit] + safe.CUT)
    if isinstance(value, float):
        return round(value, 6)
    return value


def _json_renderer() -> Render:
    structlog = _structlog()
    to_json = structlog.processors.JSONRenderer()

    def render(record: MutableMapping[str, object]) -> str:
        text = to_json(None, "", record)
        return (text if isinstance(text, str) else text.decode()) + "\n"

    return render


def _human_renderer() -> Render:
    structlog = _structlog()
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stdout.isatty(), sort_keys=False, pad_event_to=24
    )

    def render(record: MutableMapping[str, object]) -> str:
        one_line = {
            key: safe.line(each) if isinstance(each, str) else each for key, each in record.items()
        }
        text: str = console(None, "", one_line)
        return text + "\n"

    return render


def _structlog() -> ModuleType:
    """Import structlog as if rich were not installed, as in the image.

    structlog would import rich to show tracebacks, but the log has none. That would take 60 ms of
    each boot if the laptop's command, which needs rich, is installed beside the agent.
    """
    absent = "rich" not in sys.modules
    if absent:
        sys.modules["rich"] = None  # type: ignore[assignment]  # this is how an import is refused
    try:
        import structlog
    finally:
        if absent:
            del sys.modules["rich"]
    return structlog
