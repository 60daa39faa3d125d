"""The differences of two checkpoints, written down for the process that places files.

The login account decides how many files there are and how long their paths are: so they go
straight into a file without a name, and never into our memory.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from agent import unnamed
from agent.checkpoints.restic import Change

MOST_CHANGES, MOST_BYTES = 1_000_000, 64 << 20
"""The most changes that a restore in place can handle, and the most bytes of their paths."""

MOST_PATHS = 100

_PIECE = 64 << 10


class Differences:
    """The file. `count` is the number of changes; `replaced` has the first paths at which a folder
    becomes something else."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.count = 0
        self.replaced: list[str] = []
        self._size = 0
        self._piece = bytearray()
        self._problem: OSError | None = None

    @property
    def too_many(self) -> bool:
        """Whether some were left out."""
        return self.count > MOST_CHANGES or self._size > MOST_BYTES

    def add(self, change: Change) -> None:
        """Add a change; errors are raised by `end`."""
        line = f"{change.modifier[:1]} {change.path}\0".encode("utf-8", "surrogatepass")
        self.count += 1
        self._size += len(line)
        if self.too_many:
            return
        self._piece += line
        if len(self._piece) >= _PIECE:
            try:
                self._write()
            except OSError as error:
                self._problem = error
        is_other = change.modifier[:1] == "T" and not change.path.endswith("/")
        if is_other and len(self.replaced) < MOST_PATHS:
            self.replaced.append(change.path)

    def end(self) -> None:
        """Finish: rewind the file for reading. Raises `OSError`."""
        if self._problem is not None:
            raise self._problem
        self._write()
        os.lseek(self.file, 0, os.SEEK_SET)

    def _write(self) -> None:
        left = memoryview(bytes(self._piece))
        self._piece.clear()
        while left:
            left = left[os.write(self.file, left) :]


@contextmanager
def differences(folder: str) -> Iterator[Differences]:
    """Open an empty `Differences`; `folder` is for `unnamed.write`. Raises `OSError`."""
    file = unnamed.write(b"", folder)
    try:
        yield Differences(file)
    finally:
        os.close(file)
