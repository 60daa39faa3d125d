"""A machine on this computer: swarm-agent as PID 1 of namespaces of its own.

As root the machine has its own processes, mounts, /run, terminals and login account, and the
host keeps everything it had. As an ordinary user the agent runs as a plain process, with that
user as the only login.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from agent.init.proctree import descendants

LOGIN = "dev"
UID = 1000
VOLUME = "/mnt"

_ENTER = Path(__file__).with_name("enter.sh")
AGENT = (str(Path(sys.executable).with_name("swarm-agent")), "run")


class Machine:
    """One life of a machine at a time; what lies in `folder` outlives them all."""

    program = AGENT[0]
    """The agent, as the machine sees it."""

    def __init__(
        self,
        folder: Path,
        *,
        login: str = LOGIN,
        password_field: str = "*",
        namespaces: bool = True,
    ) -> None:
        self.folder = folder
        self.namespaces = namespaces and os.geteuid() == 0
        self.user = login if self.namespaces else _own_name()
        self._password_field = password_field
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def volume(self) -> Path:
        """The machine's volume, as the host sees it."""
        return self.folder / "volume"

    def start(
        self,
        environ: Mapping[str, str],
        *,
        command: Sequence[str] = AGENT,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        prefix: Sequence[str] = (),
        new_session: bool = False,
    ) -> None:
        """Boot. `environ` is the whole environment of the agent but for PATH and the volume.

        In a new session, Ctrl-C at the terminal is the caller's alone.
        """
        self._prepare()
        base = {"PATH": os.environ["PATH"], "SWARM_VOLUME": self._volume_inside()}
        if not self.namespaces:
            base["SWARM_RUN_DIR"] = str(self.folder / "run")
        argv = [*prefix, *self._enter(), *command]
        self._process = subprocess.Popen(
            argv,
            env=base | dict(environ),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=new_session,
        )

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """What was started on the host; the machine's init is below it."""
        assert self._process is not None
        return self._process

    @property
    def init(self) -> int:
        """The process id of the machine's PID 1, as the host sees it.

        Raises `ProcessLookupError` while there is none: it has ended, or is about to begin.
        """
        pid = self.process.pid
        if not self.namespaces:
            return pid
        path = Path(f"/proc/{pid}/task/{pid}/children")
        try:
            return int(path.read_text().split()[0])
        except (FileNotFoundError, IndexError):
            raise ProcessLookupError("the machine has no init now") from None

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the machine's init."""
        os.kill(self.init, number)

    def running(self) -> bool:
        """The machine has not ended."""
        return self._process is not None and self._process.poll() is None

    def wait(self, timeout: float | None = None) -> int:
        """The exit status of the machine's init; negative for a signal."""
        return self.process.wait(timeout)

    def kill(self) -> None:
        """Pull the plug: nothing of the machine stays, whatever its init was doing."""
        if self._process is None:
            return
        below = [] if self.namespaces else descendants(self.process.pid)
        if self.running():
            os.kill(self.init, signal.SIGKILL)
            self.wait()
        for process in below:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def _volume_inside(self) -> str:
        return VOLUME if self.namespaces else str(self.volume)

    def _enter(self) -> list[str]:
        if not self.namespaces:
            return []
        unshare = shutil.which("unshare") or "/usr/bin/unshare"
        flags = ["--pid", "--fork", "--mount", "--uts", "--ipc", "--kill-child"]
        return [unshare, *flags, str(_ENTER), str(self.folder)]

    def _prepare(self) -> None:
        self.volume.mkdir(parents=True, exist_ok=True)
        if not self.namespaces:
            return
        home = self.folder / "home" / self.user
        if not home.exists():
            shutil.copytree("/etc/skel", home)
            # Debian's login shells have this folder in their PATH.
            (home / ".local" / "bin").mkdir(parents=True)
            (home / ".local" / "bin" / "swarm-agent").symlink_to(AGENT[0])
            for path in (home, *home.rglob("*")):
                os.chown(path, UID, UID, follow_symlinks=False)
        programs = self.folder / "bin"
        if not programs.exists():
            programs.mkdir(mode=0o755)
            (programs / "swarm-agent").symlink_to(AGENT[0])
        etc = self.folder / "etc"
        etc.mkdir(exist_ok=True)
        login = self.user
        _with_account(etc, "passwd", f"{login}:x:{UID}:{UID}::/home/{login}:/bin/bash")
        _with_account(etc, "group", f"{login}:x:{UID}:")
        _with_account(etc, "shadow", f"{login}:{self._password_field}:19000:0:99999:7:::")


def _with_account(etc: Path, name: str, line: str) -> None:
    """The host's account file with our account in the place of whoever had its name or id."""
    name_of_ours = line.partition(":")[0]
    kept = [
        entry
        for entry in Path("/etc", name).read_text().splitlines()
        if entry.split(":")[0] != name_of_ours and entry.split(":")[2:3] != [str(UID)]
    ]
    path = etc / name
    path.touch(mode=0o600 if name == "shadow" else 0o644)
    path.write_text("\n".join([*kept, line, ""]))


def _own_name() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name
