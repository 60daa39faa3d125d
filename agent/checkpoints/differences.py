"""How two checkpoints differ, noted for the process that places files.

The login account chooses how many files there are and how long their paths: what is noted goes
into a file without a name as it comes, and never into our memory.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from agent import unnamed
from agent.checkpoints.restic import Change

MOST_CHANGES, MOST_BYTES = 1_000_000, 64 << 20
"""Changes that a restore in place can work with, and bytes of their paths."""

MOST_PATHS = 100

_PIECE = 64 << 10


class Differences:
    """The file. `count` is how many there are; `replaced` has the first paths at which another kind
    of entry follows."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.count = 0
        self.replaced: list[str] = []
        self._size = 0
        self._piece = bytearray()
        self._problem: OSError | None = None

    @property
    def too_many(self) -> bool:
        """Some were left out."""
        return self.count > MOST_CHANGES or self._size > MOST_BYTES

    def add(self, change: Change) -> None:
        """One more; `end` raises what goes wrong here."""
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
        """All are there: the file is read from its beginning. Raises `OSError`."""
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
    """Some to note; `folder` is for `unnamed.write`. Raises `OSError`."""
    file = unnamed.write(b"", folder)
    try:
        yield Differences(file)
    finally:
        os.close(file)
