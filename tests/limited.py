"""Groups of processes with a limit, for machines that lack processes or memory."""

import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.support import until


class Limited:
    """A group of processes with a limit (cgroups, version 1 or 2)."""

    def __init__(self, controller: str, setting: str) -> None:
        old = Path("/sys/fs/cgroup", controller)
        self.folder = (old if old.is_dir() else Path("/sys/fs/cgroup")) / f"swarm{os.getpid()}"
        self._setting = {"memory.max": "memory.limit_in_bytes"}.get(setting, setting)
        if not old.is_dir():
            Path("/sys/fs/cgroup/cgroup.subtree_control").write_text(f"+{controller}")
            self._setting = setting
        self.folder.mkdir()

    def take(self, pid: int) -> None:
        (self.folder / "cgroup.procs").write_text(str(pid))

    def limit(self, value: int | str) -> None:
        (self.folder / self._setting).write_text(str(value))

    def count(self) -> int:
        return len((self.folder / "cgroup.procs").read_text().split())

    def remove(self) -> None:
        for pid in (self.folder / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        until(lambda: self.count() == 0, "an empty group")
        self.folder.rmdir()
