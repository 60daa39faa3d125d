"""Login records for `who`, `w` and `last` (utmp(5)), with the client's address.

sshd records the address of its peer, which may be the proxy; some builds of sshd write no records.
So the agent overwrites sshd's record, or adds its own if there is none.
"""

import os
import socket
import struct
import time

from agent.access.sessions import Session
from agent.network import Network

UTMP, WTMP = "/run/utmp", "/var/log/wtmp"
LASTLOG = "/var/log/lastlog"

_USER, _DEAD = 7, 8
# struct utmp of glibc: larger on machines where time_t has had 64 bits from the start.
_WIDE = os.uname().machine in ("aarch64", "riscv64", "loongarch64")
_RECORD = struct.Struct(
    "<hxxi32s4s32s256shhxxxxqqq16s20xxxxx" if _WIDE else "<hxxi32s4s32s256shhiii16s20x"
)
_TYPE, _PID, _LINE, _ID, _NAME, _HOST, _SECONDS, _ADDRESS = 0, 1, 2, 3, 4, 5, 9, 11
_SEARCHED = 64 * _RECORD.size
"""Bytes at the end of wtmp that are searched for sshd's own record of a login."""


def prepare() -> None:
    """Create the files if the image has none: programs do not create them."""
    for path in (UTMP, WTMP, LASTLOG):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        except OSError:
            continue  # it exists, or its folder does not: these records are optional


def opened(session: Session, terminal: str) -> None:
    """Record that a session has opened a terminal (`pts/3`)."""
    _write(session, terminal, _USER)


def closed(session: Session) -> None:
    """Record that a session's terminals are closed."""
    for terminal in session.terminals:
        _write(session, terminal, _DEAD)


def _write(session: Session, terminal: str, kind: int) -> None:
    record = _record(session, terminal, kind, time.time())
    for path, whole in ((UTMP, True), (WTMP, False)):
        try:
            _put(path, record, terminal, whole=whole, login=kind == _USER)
        except OSError:
            continue  # no such file, or a full disk: these records are optional


def _record(session: Session, terminal: str, kind: int, now: float) -> bytes:
    host = session.client.host
    alive = kind == _USER
    return _RECORD.pack(
        kind,
        session.process.pid,
        terminal.encode(),
        terminal.removeprefix("pts/").encode()[-4:],
        session.user.encode()[:32] if alive else b"",
        session.client.host.address.encode() if alive else b"",
        0,
        0,
        0,
        int(now),
        int(now % 1 * 1_000_000),
        _address(host) if alive else b"",
    )


def _address(host: Network) -> bytes:
    return socket.inet_pton(host.family, host.address)


def _put(path: str, record: bytes, terminal: str, *, whole: bool, login: bool) -> None:
    """Overwrite the record of this terminal, or append one.

    In wtmp, which is a history, only sshd's record of the same login is overwritten.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(descriptor).st_size // _RECORD.size * _RECORD.size
        start = 0 if whole else max(0, size - _SEARCHED)
        known = os.pread(descriptor, min(size, 1 << 20), start)
        at = _find(known, terminal, whole=whole, login=login)
        os.pwrite(descriptor, record, size if at < 0 else start + at)
    finally:
        os.close(descriptor)


def _find(known: bytes, terminal: str, *, whole: bool, login: bool) -> int:
    for at in range(len(known) - _RECORD.size, -1, -_RECORD.size):
        fields = _RECORD.unpack_from(known, at)
        if fields[_LINE].rstrip(b"\0").decode("ascii", "replace") != terminal:
            continue
        if whole:
            return at
        recent = abs(time.time() - int(fields[_SECONDS])) < RECENT
        same = fields[_TYPE] == (_USER if login else _DEAD)
        return at if same and recent else -1
    return -1


RECENT = 10.0
"""Seconds within which a record of the same terminal belongs to the same login."""
