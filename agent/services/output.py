"""Reads the output of a service line by line; the service never waits for us.

A service may write as much as it likes. Output beyond `RATE` is discarded inside the kernel
(splice(2) to /dev/null), so that it slows down neither the service nor SSH.
"""

import asyncio
import fcntl
import os
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agent import safe
from agent.init.descriptor import NONE, Descriptor
from agent.pace import Bucket

LINE_LIMIT = 64 << 10
KEPT_LINES, KEPT_BYTES = 1000, 128 << 10
"""Lines kept per service, and the memory for them: 25 MiB for 200 services."""

RATE, BURST = 256 << 10, 2 << 20
"""Bytes a second that are read as lines, and the largest burst."""

_CHUNK = 64 << 10
_PIPE_SIZE = 1 << 20  # what an unprivileged process may ask for
_CUT = " …(cut)"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a service; `stream` is `stdout` or `stderr`, `number` counts its lines."""

    number: int
    at: float
    stream: str
    text: str


@dataclass(slots=True)
class Stream:
    """Our end of a pipe (-1: closed), and the part of an incomplete line that was read."""

    descriptor: Descriptor
    begun: bytes = b""


@dataclass(slots=True)
class Lines:
    """The last lines of a service, their size in memory, and how many there were in all."""

    kept: deque[Line] = field(default_factory=deque)
    size: int = 0
    count: int = 0


class Ring:
    """The last lines of a service. `changed` is set at the next line, and then replaced."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.changed = asyncio.Event()

    def add(self, at: float, stream: str, text: str) -> None:
        """Add a line."""
        lines = self.lines
        lines.count += 1
        line = Line(lines.count, at, stream, text)
        lines.kept.append(line)
        lines.size += _size(line)
        while len(lines.kept) > KEPT_LINES or lines.size > KEPT_BYTES:
            lines.size -= _size(lines.kept.popleft())
        self.changed.set()
        self.changed = asyncio.Event()

    def after(self, number: int) -> list[Line]:
        """The kept lines after number `number`."""
        return [line for line in self.lines.kept if line.number > number]

    def last(self, count: int) -> str:
        """The last lines as one text."""
        return " | ".join(line.text for line in list(self.lines.kept)[-count:])


def _size(line: Line) -> int:
    return sys.getsizeof(line.text) + sys.getsizeof(line)


class Output:
    """Reads one pipe until it ends or is closed.

    `on_line` is called with each line, `on_lost` with the number of bytes that were discarded, once
    the service writes less again.
    """

    def __init__(
        self,
        stream: Stream,
        on_line: Callable[[str], None],
        on_lost: Callable[[int], None],
    ) -> None:
        self._stream = stream
        descriptor = stream.descriptor
        self._on_line = on_line
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self._cutting = False
        self._lost = 0
        self._bucket = Bucket(BURST, self._loop.time())
        os.set_blocking(descriptor, False)
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self._loop.add_reader(descriptor, self._readable)

    def close(self) -> None:
        """Read the rest and close the pipe; does nothing the second time."""
        while self._readable():
            pass
        self._end()

    def _readable(self) -> bool:
        """Read one piece; False when nothing is left for now."""
        if self._stream.descriptor < 0:
            return False
        try:
            if self._has_tokens():
                data = os.read(self._stream.descriptor, _CHUNK)
                count = len(data)
                self._bucket.take(count, RATE, BURST, self._loop.time())
                self._split(data)
            else:
                count = os.splice(
                    self._stream.descriptor, self._null, _PIPE_SIZE, flags=os.SPLICE_F_NONBLOCK
                )
                self._discard(count)
        except BlockingIOError:
            return False
        if not count:
            self._end()
        return bool(count)

    def _has_tokens(self) -> bool:
        # Reading resumes only once a good part of the burst is available, not for every byte.
        enough = BURST / 4 if self._lost else 0
        if self._bucket.level(RATE, BURST, self._loop.time()) <= enough:
            return False
        if self._lost:
            lost, self._lost = self._lost, 0
            self._on_lost(lost)
        return True

    def _discard(self, count: int) -> None:
        if not self._lost and self._stream.begun:
            self._line(self._stream.begun, cut=True)
        self._stream.begun = b""
        # The next data begins in the middle of a line.
        self._cutting = True
        self._lost += count

    def _split(self, data: bytes) -> None:
        *lines, rest = (self._stream.begun + data).split(b"\n")
        for line in lines:
            if self._cutting:
                self._cutting = False
            else:
                self._line(line, cut=len(line) > LINE_LIMIT)
        if len(rest) > LINE_LIMIT and not self._cutting:
            self._line(rest, cut=True)
            self._cutting = True
        self._stream.begun = b"" if self._cutting else rest

    def _line(self, line: bytes, *, cut: bool) -> None:
        text = safe.output(line[:LINE_LIMIT])
        self._on_line(text + _CUT if cut else text)

    def _end(self) -> None:
        if self._stream.descriptor < 0:
            return
        self._loop.remove_reader(self._stream.descriptor)
        if self._stream.begun:
            self._line(self._stream.begun, cut=False)
        if self._lost:
            self._on_lost(self._lost)
        os.close(self._stream.descriptor)
        os.close(self._null)
        self._stream.descriptor = NONE
