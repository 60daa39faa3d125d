"""Re-executing in place: the process becomes a new agent by execve(2).

Its children stay its children and its descriptors keep their numbers. What else the next agent must
know travels as records, pickled into a file in memory that nobody but root can open. Each record
belongs to the module that makes it; this module knows no field of any. Which descriptors stay open
and which children are waited for, the pickler finds by their types (`Descriptor`, `HeldChild`).
Nothing here is imported on the way from exec to the first banner of an ordinary start.
"""

import copyreg
import io
import os
import pickle
import sys
from collections.abc import Mapping
from typing import NoReturn

from agent import __version__, unnamed
from agent.init.children import HeldChild
from agent.init.descriptor import Descriptor
from agent.life.handed import Handed


class _Pickler(pickle.Pickler):
    """Notes every descriptor and every running child that it meets in a record."""

    def __init__(self, out: io.BytesIO) -> None:
        super().__init__(out)
        self.descriptors: list[int] = []
        self.pids: list[int] = []
        self.dispatch_table = copyreg.dispatch_table.copy()
        self.dispatch_table[Descriptor] = self._descriptor
        self.dispatch_table[HeldChild] = self._child

    def _descriptor(self, descriptor: Descriptor) -> tuple[type[Descriptor], tuple[int]]:
        if descriptor >= 0:
            self.descriptors.append(int(descriptor))
        return Descriptor, (int(descriptor),)

    def _child(self, child: HeldChild) -> tuple[type[HeldChild], tuple[object, ...]]:
        if child.exited is None:
            self.pids.append(child.pid)
        return HeldChild, (child.pid, child.exited)


def re_execute(handed: Handed, environ: Mapping[str, str], variable: str, folder: str) -> NoReturn:
    """Become a new agent, which finds what it is handed by `variable`. Raises `OSError`.

    `folder` is for `unnamed.write`.
    """
    records = io.BytesIO()
    pickler = _Pickler(records)
    pickler.dump(handed.records)
    head = (__version__, pickler.descriptors, pickler.pids, records.getvalue())
    file = unnamed.write(pickle.dumps(head), folder)
    for descriptor in (file, *pickler.descriptors):
        os.set_inheritable(descriptor, True)
    # The interpreter by the name that it was called by: a virtual environment is found by that.
    argv = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, argv, {**environ, variable: str(file)})  # noqa: S606  # ourselves


def take(file: int) -> Handed | None:
    """What the previous agent handed over; None if it came from another version.

    Its children are then ours, and unknown.
    """
    try:
        with open(file, "rb") as content:
            version, descriptors, pids, records = pickle.load(content)  # noqa: S301  # ours
        handed = Handed(pickle.loads(records), tuple(pids))  # noqa: S301  # as above
    except Exception:
        version = None
    if version != __version__:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        return None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return handed
