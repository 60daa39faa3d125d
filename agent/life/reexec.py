"""Re-executing in place: the process becomes a new agent by execve(2).

Its children stay its children and its descriptors keep their numbers. What else the next agent must
know are the records (`records.py`), pickled into a file in memory that nobody but root can open.
Three kinds of values in them live outside of the pickle: children, sockets and descriptors. The
pickler finds them wherever they are. This module knows no field of any record. Nothing here is
imported between exec and the first banner of an ordinary start.
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
    """Adopts the children. What was one object is one object again."""

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
        """Leave the descriptors of all sockets to the caller."""
        for each in self._met.values():
            if isinstance(each, socket.socket):
                each.detach()


def re_execute(
    records: Records, environ: Mapping[str, str], variable: str, folder: str
) -> NoReturn:
    """Become a new agent, which finds the records by `variable`. Raises `OSError`.

    `folder` is for `unnamed.write`.
    """
    content = io.BytesIO()
    pickler = _Pickler(content)
    pickler.dump(records)
    head = (__version__, pickler.descriptors, content.getvalue())
    file = unnamed.write(pickle.dumps(head), folder)
    for descriptor in (file, *pickler.descriptors):
        os.set_inheritable(descriptor, True)
    # The interpreter by the name that it was called by: a virtual environment is found by that.
    argv = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, argv, {**environ, variable: str(file)})  # noqa: S606  # ourselves


def take(file: int, children: Children) -> Records | None:
    """The records of the previous agent; None if it was of another version.

    Its children are then ours, and unknown. Called in the event loop, before children are reaped.
    """
    with open(file, "rb") as content:
        # Of any version, these come first and the records last.
        version, descriptors, *_, pickled = pickle.load(content)  # noqa: S301  # ours
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    unpickler = _Unpickler(io.BytesIO(pickled), children)
    records: Records | None = None
    if version == __version__:
        with suppress(Exception):  # whatever records that were changed meet
            records = unpickler.load()
    if records is None:
        unpickler.let_go()
        for descriptor in descriptors:
            os.close(descriptor)
    else:
        records.inherited = True
    return records
