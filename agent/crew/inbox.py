"""Receives hooks on a datagram socket in the run folder.

Datagrams, because a hook must not wait for us, and because we decide how many are read: `BATCH`
every `PACE` seconds, whatever an account sends. Further ones wait in the kernel, which keeps few
and then blocks the sender; the sender gives up after a second.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable

from agent.crew.tell import MOST_SENT, SOCKET

BATCH = 32
PACE = 0.05

_CREDENTIALS = struct.Struct("=3i")  # struct ucred: pid, uid, gid (unix(7))


class Inbox:
    """Accepts datagrams of root and the login account."""

    def __init__(self, run_dir: str, uid: int, gid: int, take: Callable[[bytes], None]) -> None:
        self._path = f"{run_dir}/{SOCKET}"
        self._uids = {0, os.geteuid(), uid}
        self._gid = gid
        self._take = take
        self._socket: socket.socket | None = None

    async def run(self) -> None:
        """Receive until cancelled. Raises `OSError` if the socket cannot be created."""
        loop = asyncio.get_running_loop()
        self._socket = self._bind()
        loop.add_reader(self._socket, self._read)
        try:
            await loop.create_future()
        finally:
            loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _bind(self) -> socket.socket:
        if os.path.lexists(self._path):
            os.unlink(self._path)
        box = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        box.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        before = os.umask(0o117)
        try:
            box.bind(self._path)
        finally:
            os.umask(before)
        os.chown(self._path, os.geteuid(), self._gid)
        box.setblocking(False)
        return box

    def _read(self) -> None:
        if self._socket is None:
            return
        loop = asyncio.get_running_loop()
        for _ in range(BATCH):
            try:
                data, sent, flags, _ = self._socket.recvmsg(
                    MOST_SENT, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
            except (BlockingIOError, InterruptedError):
                return
            if not flags & socket.MSG_TRUNC and _sender(sent) in self._uids:
                self._take(data)
        loop.remove_reader(self._socket)
        loop.call_later(PACE, self._resume)

    def _resume(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket, self._read)


def _sender(sent: list[tuple[int, int, bytes]]) -> int:
    """The sender's user id, verified by the kernel; -1 without one."""
    for level, kind, data in sent:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            uid: int = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[1]
            return uid
    return -1
