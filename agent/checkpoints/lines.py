"""Reads a child's output line by line, with bounds."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONGEST_LINE = 1 << 22
"""The longest line in bytes; a longer one is dropped."""

LAST_READS = 64
"""The most reads after the child has exited: another process may still write."""


class Lines:
    """The reading end of a pipe: delivers whole lines."""

    def __init__(self, hear: Callable[[bytes], None]) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self._hear = hear
        self._kept = bytearray()
        self._skipping = False

    def started(self) -> None:
        """Start reading: the child has the writing end."""
        self._close_writing()
        asyncio.get_running_loop().add_reader(self.reading, self._read)

    def close(self) -> None:
        """Read the remaining data and stop: a grandchild may hold the other end."""
        self._close_writing()
        asyncio.get_running_loop().remove_reader(self.reading)
        for _ in range(LAST_READS):
            if not self._read():
                break
        if self._kept:
            self._line(bytes(self._kept))
        os.close(self.reading)

    def _close_writing(self) -> None:
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def _read(self) -> bool:
        try:
            data = os.read(self.reading, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            asyncio.get_running_loop().remove_reader(self.reading)
            return False
        self._kept += data
        *lines, rest = self._kept.split(b"\n")
        for line in lines:
            self._line(bytes(line))
        self._kept = rest
        if len(self._kept) > LONGEST_LINE:
            self._kept.clear()
            self._skipping = True
        return True

    def _line(self, line: bytes) -> None:
        if self._skipping:
            self._skipping = False
        else:
            self._hear(line)


@contextmanager
def pipe(hear: Callable[[bytes], None]) -> Iterator[Lines]:
    """A pipe whose lines go to `hear`; call `started` once the child has its end."""
    lines = Lines(hear)
    try:
        yield lines
    finally:
        lines.close()
