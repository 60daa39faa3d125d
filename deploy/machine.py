"""A machine on this computer: swarm-agent as PID 1 of its own namespaces.

As root, the machine has its own processes, mounts, /run, terminals and login account, and nothing
on the host changes. As an ordinary user, the agent runs as a plain process, with that user as the
only login.
"""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import agent
from agent.init.proctree import descendants

LOGIN = "dev"
UID = 1000
VOLUME = "/mnt"

PROGRAM = "/run/swarm-agent"
"""The folder of the agent's program in a machine; the login account may enter it."""

_ENTER = Path(__file__).with_name("enter.sh")
AGENT = (str(Path(sys.executable).with_name("swarm-agent")), "run")
"""The agent outside a machine."""

_PID = "pid"
"""The file with the id of the process whose child is the machine's init."""

_UNSHARE = (
    shutil.which("unshare") or "/usr/bin/unshare",
    *("--pid", "--fork", "--mount", "--uts", "--ipc", "--kill-child"),
)

_START = f"""\
#!{PROGRAM}/bin/python
from agent.__main__ import main
main()
"""


class LocalMachine:
    """One run of a machine at a time; `folder` persists between runs."""

    def __init__(
        self,
        folder: Path,
        *,
        login: str = LOGIN,
        password_field: str = "*",
        namespaces: bool = True,
        uid: int = UID,
    ) -> None:
        self.folder = folder
        self._uid = uid
        self.namespaces = namespaces and os.geteuid() == 0
        self.program = f"{PROGRAM}/bin/swarm-agent" if self.namespaces else AGENT[0]
        """The agent, as the machine sees it."""
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
        command: Sequence[str] = (),
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        prefix: Sequence[str] = (),
        new_session: bool = False,
    ) -> None:
        """Boot with a command, by default the agent.

        `environ` is the agent's whole environment except PATH and the volume.

        With `new_session`, Ctrl-C at the terminal reaches only the caller.
        """
        self._prepare()
        base = {"PATH": os.environ["PATH"], "SWARM_VOLUME": self._volume_inside()}
        if not self.namespaces:
            base["SWARM_RUN_DIR"] = str(self.folder / "run")
        argv = [*prefix, *self._enter(), *(command or (self.program, "run"))]
        self._process = subprocess.Popen(
            argv,
            env=base | dict(environ),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=new_session,
        )
        (self.folder / _PID).write_text(f"{self._process.pid}\n")

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process started on the host; the machine's init is below it."""
        assert self._process is not None
        return self._process

    @property
    def init(self) -> int:
        """The process id of the machine's PID 1, as the host sees it.

        Raises `ProcessLookupError` while there is none: it has exited or not started yet.
        """
        pid = self.process.pid
        if not self.namespaces:
            return pid
        init = _child(pid)
        if init is None:
            raise ProcessLookupError("the machine has no init now")
        return init

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the machine's init."""
        os.kill(self.init, number)

    def running(self) -> bool:
        """Whether the machine has not exited yet."""
        return self._process is not None and self._process.poll() is None

    def wait(self, timeout: float | None = None) -> int:
        """The exit status of the machine's init; negative for a signal."""
        return self.process.wait(timeout)

    def kill(self, *, wait: bool = True) -> None:
        """Pull the plug: kill every process of the machine.

        A frozen machine dies when it is thawed: do not wait for it before.
        """
        if self._process is None:
            return
        below = [] if self.namespaces else descendants(self.process.pid)
        if self.running():
            try:
                os.kill(self.init, signal.SIGKILL)
            except ProcessLookupError:
                self.process.kill()  # its init has just exited, or has not started yet
            if wait:
                self.wait()
        for process in below:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def _volume_inside(self) -> str:
        return VOLUME if self.namespaces else str(self.volume)

    def _enter(self) -> list[str]:
        if not self.namespaces:
            return []
        return [*_UNSHARE, str(_ENTER), str(self.folder)]

    def _prepare(self) -> None:
        before = os.umask(0o022)
        try:
            self._make_inside()
        finally:
            os.umask(before)

    def _make_inside(self) -> None:
        self.volume.mkdir(parents=True, exist_ok=True)
        if not self.namespaces:
            return
        home = self.folder / "home" / self.user
        if not home.exists():
            shutil.copytree("/etc/skel", home)
            # Debian's login shells have this folder in their PATH.
            (home / ".local" / "bin").mkdir(parents=True)
            (home / ".local" / "bin" / "swarm-agent").symlink_to(self.program)
            for path in (home, *home.rglob("*")):
                os.chown(path, self._uid, self._uid, follow_symlinks=False)
        _link(self.folder / "bin" / "swarm-agent", self.program)
        _make_program(self.folder)
        etc = self.folder / "etc"
        etc.mkdir(exist_ok=True)
        login, uid = self.user, self._uid
        _with_account(etc, "passwd", f"{login}:x:{uid}:{uid}::/home/{login}:/bin/bash", uid)
        _with_account(etc, "group", f"{login}:x:{uid}:", uid)
        _with_account(etc, "shadow", f"{login}:{self._password_field}:19000:0:99999:7:::", uid)


def namespaces_problem() -> str:
    """Why no machine with its own namespaces can be created here; empty if it can."""
    probe = [*_UNSHARE, "sh", "-c", "mount --make-rprivate / && mount -t tmpfs tmpfs /run"]
    try:
        done = subprocess.run(probe, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip().replace("\n", "; ")


def machine_init(folder: Path) -> int | None:
    """The process id of this folder's machine's PID 1, on this computer; None while it has none."""
    try:
        pid = int((folder / _PID).read_text())
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    # Another process may have this ID by now.
    return _child(pid) if str(folder).encode() in argv else None


def _child(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return None


def _make_program(folder: Path) -> None:
    """Create the machine's own virtual environment, and the files that enter.sh binds into it.

    It uses the agent and the packages that run this program: nothing is copied.
    """
    place = folder / "program"
    python = os.path.realpath(sys.executable)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = place / "lib" / version / "site-packages"
    for inside in (place / "bin", site, place / "packages", place / "source/agent"):
        inside.mkdir(parents=True, exist_ok=True)
    _link(place / "bin/python", python)
    (place / "pyvenv.cfg").write_text(
        f"home = {os.path.dirname(python)}\ninclude-system-site-packages = false\n"
    )
    (site / "swarm.pth").write_text(f"{PROGRAM}/source\n{PROGRAM}/packages\n")
    (place / "bin/swarm-agent").write_text(_START)
    (place / "bin/swarm-agent").chmod(0o755)
    source = Path(agent.__file__).parent
    if source.stat().st_mode & 0o005 != 0o005:  # a clone made with a strict umask
        source = _readable_copy(source, folder / "copy" / "agent")
    _link(folder / "from/agent", str(source))
    _link(folder / "from/packages", sysconfig.get_path("purelib"))


def _readable_copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(mode=0o755, exist_ok=True)
    if not (path.is_symlink() and os.readlink(path) == target):
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def _with_account(etc: Path, name: str, line: str, uid: int) -> None:
    """The host's account file, with our account replacing one of the same name or ID."""
    name_of_ours = line.partition(":")[0]
    kept = [
        entry
        for entry in Path("/etc", name).read_text().splitlines()
        if entry.split(":")[0] != name_of_ours and entry.split(":")[2:3] != [str(uid)]
    ]
    path = etc / name
    path.touch(mode=0o600 if name == "shadow" else 0o644)
    path.write_text("\n".join([*kept, line, ""]))


def _own_name() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name
