"""`make run`: a machine behind the stand-in for the platform, with its own new key.

The screen shows its steps, one closing block, and then the important events; the whole log is in
.run/log. `make shell` opens a root shell in the machine.
"""

import asyncio
import fcntl
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn

from agent import places
from agent.cli.tables import width, wrapped
from agent.platform.account import DEFAULT_UID
from agent.settings import SettingsError, load
from deploy import console
from deploy.api import MachinesApi
from deploy.edge import Edge
from deploy.machine import AGENT, LocalMachine, namespaces_problem
from deploy.scrape import Scraper
from deploy.standin import MachineState, StandIn, socket_path

FOLDER = Path(os.environ.get("RUN_FOLDER") or Path(__file__).resolve().parent.parent / ".run")
"""The folder of all files of `make run`. RUN_FOLDER names another one, for a second machine."""
STARTS = 60.0
"""Seconds that the machine may take until SSH is open."""

LAST_LINES = 15

SOCKET_NAME = 107
"""The longest path of a Unix socket in bytes (unix(7))."""


class CannotRun(Exception):
    """There can be no machine; the message tells the user why."""


def main() -> None:
    """Run it until a signal."""
    try:
        sys.exit(_main())
    except KeyboardInterrupt:
        sys.exit(130)
    except CannotRun as error:
        columns = width(sys.stderr)
        for line in f"make run: {error}".splitlines():
            print(wrapped(line, "  ", most=columns), file=sys.stderr)
        sys.exit(1)


def _main() -> int:
    if os.geteuid() == 0 and (problem := namespaces_problem()):
        _continue_without_root(problem)
    if len(os.fsencode(socket_path(FOLDER))) > SOCKET_NAME:
        raise CannotRun(
            f"the path {FOLDER} is too long for a socket in it: RUN_FOLDER=/tmp/run make run"
        )
    FOLDER.mkdir(parents=True, exist_ok=True)
    lock = (FOLDER / "lock").open("w")  # held until this process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotRun(
            "a machine runs in this folder already; for a second one: RUN_FOLDER=/tmp/two make run"
        ) from None
    host = os.environ.get("HOST", "127.0.0.1")
    ssh_port = _port("PORT", 10022, host)
    http_port = _port("HTTP_PORT", 9091, "127.0.0.1")
    machine_port = _port("MACHINE_PORT", 2222, "127.0.0.1", any_other=True)
    key = FOLDER / "id_ed25519"
    if not key.exists():
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "make-run", "-f", str(key)]
        subprocess.run(make, check=True)
    machine = LocalMachine(FOLDER / "machine")
    environ = _environ(key, machine, machine_port, http_port)
    try:
        load(environ, privileged=machine.namespaces)
    except SettingsError as error:
        problems = "\n  ".join(["these settings cannot be used:", *map(str, error.problems)])
        raise CannotRun(problems) from error
    config = FOLDER / "ssh_config"
    config.write_text(
        _SSH_CONFIG.format(host=host, port=ssh_port, user=machine.user, folder=FOLDER)
    )
    with _command_in_path(machine) as command:
        run = _Run(machine, environ, machine_port, _closing(machine, command, http_port, config))
        return asyncio.run(run.serve(host, ssh_port, http_port))


def _continue_without_root(problem: str) -> NoReturn:
    """Switch to the ordinary account of this computer, which needs no namespaces.

    A machine that runs as a plain process of root would be root on this computer. Raises
    `CannotRun` if there is no such account.
    """
    needs = f"as root it needs its own namespaces, which this computer refuses ({problem})"
    remedy = "run it as an ordinary user, or in a container with --privileged"
    try:
        account = pwd.getpwuid(DEFAULT_UID)
    except KeyError:
        raise CannotRun(f"{needs}: {remedy}") from None
    environ = {
        **os.environ,
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        # Root may own this folder.
        "RUN_FOLDER": os.environ.get("RUN_FOLDER") or f"{account.pw_dir}/.swarm-run",
    }
    drop = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups"]
    python = [*drop, sys.executable, "-m"]
    tried = subprocess.run([*python, "deploy.sizes"], env=environ, capture_output=True, check=False)
    if tried.returncode != 0:
        raise CannotRun(f"{needs}, and {account.pw_name} cannot enter this folder: {remedy}")
    _step(f"{needs}: running as {account.pw_name} instead")
    os.execvpe(python[0], [*python, "deploy.run"], environ)


class _Run:
    """The machine and the services around it, until a signal."""

    def __init__(
        self, machine: LocalMachine, environ: Mapping[str, str], machine_port: int, closing: str
    ) -> None:
        self._machine = machine
        self._closing = closing
        self._latest: deque[str] = deque(maxlen=LAST_LINES)
        self._log = (FOLDER / "log").open("w", encoding="utf-8")
        ours, theirs = os.pipe()
        self._said: IO[bytes] = os.fdopen(ours, "rb")
        self._output: IO[bytes] = os.fdopen(theirs, "wb")
        self._standin = StandIn(machine, environ, machine_port, self._tell, output=self._output)
        self._listening = asyncio.Event()
        self._signalled = asyncio.Event()
        self._ended = asyncio.Event()

    async def serve(self, host: str, ssh_port: int, http_port: int) -> int:
        """Serve until a signal, then stop the machine in order; returns the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        reader = asyncio.StreamReader(limit=1 << 20)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), self._said)
        background = [
            asyncio.create_task(self._show(reader)),
            asyncio.create_task(Edge(self._standin.connect).serve(host, ssh_port)),
            asyncio.create_task(MachinesApi(self._standin).serve(socket_path(FOLDER))),
            asyncio.create_task(Scraper(self._standin, http_port, self._tell).run()),
        ]
        try:
            await self._standin.start("make run")
            if not await self._comes_up():
                return 1
            ended = asyncio.create_task(self._signalled.wait())
            done, _ = await asyncio.wait([ended, *background], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # raises whatever failed
            return 0
        finally:
            began = time.monotonic()
            print("\nthe machine stops; Ctrl-C again kills it", flush=True)
            await self._standin.close()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            self._log.close()
            print(
                f"stopped after {time.monotonic() - began:.1f} s; its files stay in "
                f"{_short(self._machine.folder)}, and make run continues with them"
            )

    async def _comes_up(self) -> bool:
        """Wait until SSH is open, and show the closing block; or show why it does not open."""
        waits = [
            asyncio.create_task(each)
            for each in (
                self._listening.wait(),
                self._signalled.wait(),
                self._ended.wait(),
            )
        ]
        await asyncio.wait(waits, timeout=STARTS, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        if self._listening.is_set():
            print(self._closing, flush=True)
            return True
        if self._signalled.is_set():
            return True
        await asyncio.sleep(0.2)  # its last output is still on the way
        print("\n".join(["the machine does not open SSH. Its last output:", *self._latest]))
        return False

    async def _show(self, reader: asyncio.StreamReader) -> None:
        """Write the whole log to a file, and the important events on the screen."""
        while line := (await reader.readline()).decode(errors="backslashreplace"):
            self._log.write(line)
            self._log.flush()
            self._latest.append(line.rstrip())
            record = console.event_of(line)
            if record is not None and record["event"] == console.LISTENING:
                if not self._listening.is_set():
                    _step(f"SSH open after {record['seconds']:.2f} s")
                self._listening.set()
            elif text := console.shown(line, time.time()):
                print(wrapped(text, _INDENT), flush=True)

    def _on_signal(self) -> None:
        if self._signalled.is_set():
            self._machine.kill()
        self._signalled.set()

    def _tell(self, text: str) -> None:
        if self._standin.starts and self._standin.state is MachineState.STOPPED:
            self._ended.set()
        if self._listening.is_set() and not self._signalled.is_set():
            line = f"{time.strftime('%H:%M:%S')}  platform: {text}"
            print(wrapped(line, _INDENT), flush=True)


_INDENT = " " * len("HH:MM:SS  ")


_SSH_CONFIG = """\
Host swarm
  HostName {host}
  Port {port}
  User {user}
  IdentityFile "{folder}/id_ed25519"
  IdentitiesOnly yes
  UserKnownHostsFile "{folder}/known_hosts"
  StrictHostKeyChecking accept-new
  LogLevel ERROR
"""

_CLOSING = """
The machine is up: {kind},
behind a stand-in for Fly.io's edge. In another terminal, in this folder:

  log in         ssh -F {config} swarm
  in it          {command} status, why, awake --for 1h, …: {command} -h
  {root}
  status page    http://127.0.0.1:{http}/
  settings       NAME=VALUE … make run, such as SWARM_IDLE_TIMEOUT=1m
                 SWARM_IDLE_WARNING=20s to see it sleep and wake soon;
                 docs/configuration.md lists all
  ports          PORT=, HTTP_PORT=, MACHINE_PORT= make run
  whole log      {log}
  end            Ctrl-C
"""


def _closing(machine: LocalMachine, command: str, http_port: int, config: Path) -> str:
    root = "root shell     make shell (only root may kick, ban, sleep, reload)"
    return _CLOSING.format(
        kind="PID 1 of its own namespaces" if machine.namespaces else "an ordinary process",
        config=_short(config),
        log=_short(FOLDER / "log"),
        command=command,
        root=root
        if machine.namespaces
        else "its root       is you: every command of swarm-agent works",
        http=http_port,
    )


def _environ(key: Path, machine: LocalMachine, machine_port: int, http_port: int) -> dict[str, str]:
    """Variables that users set as secrets and in fly.toml; the caller's own override them."""
    given = {name: text for name, text in os.environ.items() if name.startswith("SWARM_")}
    ours = {
        "SSH_AUTHORIZED_KEYS": key.with_suffix(".pub").read_text(),
        "SWARM_PROXY_NETWORKS": "127.0.0.0/8",
        "TERM": os.environ.get("TERM", "dumb"),
    }
    if not machine.namespaces:
        # The folder in which its commands look by default.
        ours["SWARM_RUN_DIR"] = os.path.expanduser(places.RUN_DIR_UNPRIVILEGED)
    fixed = {
        "SWARM_LISTEN": f"127.0.0.1:{machine_port}",
        "SWARM_HTTP_LISTEN": f"127.0.0.1:{http_port}",
        "SWARM_FLY_API": str(socket_path(FOLDER)),
        "SWARM_LOG_FORMAT": "json",
    }
    return ours | given | fixed


def _port(variable: str, default: int, host: str, *, any_other: bool = False) -> int:
    """The port that a variable names, which must be free. Raises `CannotRun`."""
    text = os.environ.get(variable, str(default))
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise CannotRun(f"{variable}={text} is not a port")
    for port in (int(text), 0) if any_other and variable not in os.environ else (int(text),):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                problem = error.strerror
            else:
                return int(probe.getsockname()[1])
    raise CannotRun(
        f"port {text} of {host} cannot be used ({problem}); "
        f"another one: {variable}={int(text) % 65535 + 1} make run"
    )


@contextmanager
def _command_in_path(machine: LocalMachine) -> Iterator[str]:
    """The command that runs `swarm-agent` in a login; if it is not in PATH, create a link.

    Debian's login shells have ~/.local/bin in their PATH if it exists.
    """
    link = Path.home() / ".local/bin" / AGENT[0].rpartition("/")[2]
    if machine.namespaces:
        yield link.name
        return
    if link.exists() or link.is_symlink():
        yield link.name if os.path.realpath(link) == os.path.realpath(AGENT[0]) else AGENT[0]
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(AGENT[0])
    _step(f"linked {link}, until the end")
    try:
        yield link.name
    finally:
        with suppress(OSError):  # somebody has removed it
            link.unlink()


def _step(text: str) -> None:
    print(f"  {text}", flush=True)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()
