"""Freeze and thaw every process of a machine, as a suspend does.

As root a freezer cgroup (version 1 or 2) does it, and the processes notice nothing. Without one
they are stopped with SIGSTOP, which shells and debuggers can notice.
"""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent.init.proctree import descendants

_V1 = Path("/sys/fs/cgroup/freezer")
_V2 = Path("/sys/fs/cgroup")

_DEADLINE = 10.0


class Freezer:
    """Freezes the processes of one machine."""

    def __init__(self, name: str) -> None:
        self._cgroup = _make_cgroup(name) if os.geteuid() == 0 else None
        self._stopped: list[int] = []

    def prefix(self) -> Sequence[str]:
        """The prefix of a command whose processes must all be freezable."""
        if self._cgroup is None:
            return ()
        return ("sh", "-c", f'echo 0 >{self._cgroup}/cgroup.procs; exec "$@"', "sh")

    def freeze(self, root: int) -> None:
        """Freeze the process `root` and everything below it. Raises `OSError`."""
        if self._cgroup is not None:
            _set(self._cgroup, frozen=True)
            return
        self._stopped = [root, *(process.pid for process in descendants(root))]
        for pid in self._stopped:
            _signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Thaw them; does nothing if nothing is frozen."""
        if self._cgroup is not None:
            _set(self._cgroup, frozen=False)
        # Children first: a shell that wakes before its children assumes that the user stopped them.
        for pid in reversed(self._stopped):
            _signal(pid, signal.SIGCONT)
        self._stopped = []

    def remove(self) -> None:
        """Remove the cgroup, after the machine has stopped."""
        if self._cgroup is not None:
            with suppress(OSError):
                self._cgroup.rmdir()


def _make_cgroup(name: str) -> Path | None:
    parent = _V1 if (_V1 / "cgroup.procs").exists() else _V2
    folder = parent / f"swarm-{name}"
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None  # in a container, cgroups may be read-only
    return folder if any(path.exists() for path in _controls(folder)) else None


def _controls(cgroup: Path) -> tuple[Path, Path]:
    return cgroup / "freezer.state", cgroup / "cgroup.freeze"


def _set(cgroup: Path, *, frozen: bool) -> None:
    first, second = _controls(cgroup)
    if first.exists():
        order = told = "FROZEN" if frozen else "THAWED"
        control = report = first
    else:
        order, told = str(int(frozen)), f"frozen {int(frozen)}"
        control, report = second, cgroup / "cgroup.events"
    control.write_text(order)
    end = time.monotonic() + _DEADLINE
    while told not in report.read_text():
        if time.monotonic() > end:
            raise OSError(f"{cgroup} is not {told} after {_DEADLINE:g} s")
        time.sleep(0.01)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
