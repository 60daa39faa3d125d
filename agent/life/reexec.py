"""Re-executing in place: the process becomes a new agent by execve(2).

Its children stay its children and its descriptors keep their numbers. All other state that the next
agent needs is in the records (`records.py`), which are pickled into a file in memory that only root
can open. Three kinds of values exist outside of the pickle: children, sockets and descriptors. The
pickler finds them anywhere in the records, so this module knows no field of any record. An ordinary
start does not import this module before the first banner.
"""

import io
import os
import pickle
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

from agent import __version__, unnamed
from agent.init.children import Child, Children, ExitStatus
from agent.init.descriptor import Descriptor
from agent.life.records import Records

_Living = tuple[type, int, ExitStatus | None]
"""A child (process id, how it ended if that is known) or a socket (descriptor)."""


class _Pickler(pickle.Pickler):
    """Notes every descriptor that it meets."""

    def __init__(self, out: io.BytesIO) -> None:
        super().__init__(out)
        self.descriptors: set[int] = set()

    def persistent_id(self, value: object) -> _Living | None:
        if isinstance(value, Child):
            return Child, value.pid, None if value.running else value.exited.result()
        if isinstance(value, socket.socket):
            self.descriptors.add(value.fileno())
            return socket.socket, value.fileno(), None
        if isinstance(value, Descriptor) and value >= 0:
            self.descriptors.add(int(value))
        return None


class _Unpickler(pickle.Unpickler):
    """Adopts the children and sockets. Two references to one object stay references to one."""

    def __init__(self, content: io.BytesIO, children: Children) -> None:
        super().__init__(content)
        self._children = children
        self._met: dict[_Living, Child | socket.socket] = {}

    def persistent_load(self, living: _Living) -> Child | socket.socket:
        if living not in self._met:
            kind, number, exited = living
            self._met[living] = (
                self._children.adopt(number, exited)
                if kind is Child
                else socket.socket(fileno=number)
            )
        return self._met[living]

    def let_go(self) -> None:
        """Detach all sockets: the caller closes their descriptors."""
        for each in self._met.values():
            if isinstance(each, socket.socket):
                each.detach()


def re_execute(
    records: Records, environ: Mapping[str, str], variable: str, folder: str
) -> NoReturn:
    """Re-execute as a new agent, which finds the records by `variable`. Raises `OSError`.

    `folder` is for `unnamed.write`.
    """
    content = io.BytesIO()
    pickler = _Pickler(content)
    pickler.dump(records)
    head = (__version__, pickler.descriptors, content.getvalue())
    file = unnamed.write(pickle.dumps(head), folder)
    for descriptor in (file, *pickler.descriptors):
        os.set_inheritable(descriptor, True)
    # The interpreter by its original name: by that it finds its virtual environment.
    argv = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, argv, {**environ, variable: str(file)})  # noqa: S606  # ourselves


async def take(file: int, children: Children) -> Records | None:
    """The records of the previous agent; None if they cannot be used, as those of another version.

    Its children are then unknown to us. It adopts children, so it runs in the event loop, before
    children are reaped.
    """
    with open(file, "rb") as content:
        # In every version, these come first and the records last.
        version, descriptors, *_, pickled = pickle.load(content)  # noqa: S301  # ours
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    unpickler = _Unpickler(io.BytesIO(pickled), children)
    records: Records | None = None
    if version == __version__:
        with suppress(Exception):  # any error that changed record types can cause
            records = unpickler.load()
    if records is None:
        unpickler.let_go()
        for descriptor in descriptors:
            os.close(descriptor)
    else:
        records.inherited = True
    return records
