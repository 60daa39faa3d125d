"""Reads how a turn ended from the record that Codex and Gemini CLI keep of a conversation.

They append a line of JSON for each event; neither has a hook for every end of a turn. Only new data
is read, a bounded piece at each look, and only the kind and the time of each line.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from agent.crew.states import Ending
from agent.untrusted import decode

FIRST_READ = 64 << 10
"""The first look reads so many bytes from the end."""

MOST_READ = 1 << 20
"""The most bytes of one look; a longer line is skipped."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A record, the position up to which it was read (-1: not yet), and its latest turn's end."""

    path: str
    read: int = -1
    ending: Ending | None = None


class _Line(msgspec.Struct, frozen=True):
    timestamp: datetime
    type: str = ""
    payload: msgspec.Raw = msgspec.Raw()
    """Codex."""
    content: msgspec.Raw = msgspec.Raw()
    """Gemini CLI."""


class _Payload(msgspec.Struct, frozen=True):
    type: str = ""
    error: msgspec.Raw = msgspec.Raw()


def follow(before: Followed, uid: int) -> Followed:
    """Read the lines that the tool has written since the last look."""
    with suppress(OSError), opened(before.path, uid) as descriptor:
        size = os.fstat(descriptor).st_size
        start = before.read if 0 <= before.read <= size else max(0, size - FIRST_READ)
        content = os.pread(descriptor, MOST_READ, start)
        whole, _, rest = content.rpartition(b"\n")
        if not whole and len(rest) == MOST_READ:
            return replace(before, read=start + len(rest))
        ending = before.ending
        for line in whole.splitlines():
            ending = _ending(line) or ending
        return replace(before, read=start + len(content) - len(rest), ending=ending)
    return before


@contextmanager
def opened(path: str, uid: int) -> Iterator[int]:
    """Open a regular file that belongs to this account. Raises `OSError` if it is anything else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != uid:
            raise OSError(errno.EACCES, "not a file of the account")
        yield descriptor
    finally:
        os.close(descriptor)


def _ending(data: bytes) -> Ending | None:
    """The end of a turn, if this line reports one."""
    try:
        line = decode(data, _Line)
        at = line.timestamp.timestamp()
        kind, error = line.type, False
        if kind == "event_msg":
            said = decode(line.payload, _Payload)
            kind, error = said.type, bytes(said.error) not in (b"", b"null")
    except (ValueError, OverflowError):  # another kind of line, or cut off by the first look
        return None
    cancelled = kind == "info" and bytes(line.content) == b'"Request cancelled."'
    if not cancelled and kind not in ("error", "task_complete", "turn_aborted"):
        return None
    return Ending(at, failed=error or kind == "error")
