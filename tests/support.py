"""Helpers to drive a real agent in a real machine, seen from the outside."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, TypeVar

from agent import places
from deploy.machine import LocalMachine
from tests.claims import free_port

T = TypeVar("T")


DEADLINE = 60.0
ROOT = os.geteuid() == 0


def until(look: Callable[[], T], what: str, timeout: float = DEADLINE) -> T:
    """Call `look` until its result is true, and return it; fails with `what` after the timeout.

    A slow look is repeated less often: the awaited work needs the processor too.
    """
    end = time.monotonic() + timeout
    began = time.monotonic()
    while not (answer := look()):
        now = time.monotonic()
        assert now < end, f"not in {timeout:g} s: {what}"
        time.sleep(min(1.0, max(0.02, 3 * (now - began))))
        began = time.monotonic()
    return answer


def command_lines(pids: Iterable[int] | None = None) -> list[str]:
    """Over these processes, or all of this computer."""
    if pids is None:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):  # it has exited meanwhile
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


def terminals_work() -> bool:
    """Without root, sshd can only own terminals if devpts gives them to the group tty."""
    mounts = Path("/proc/mounts").read_text().splitlines()
    return ROOT or any(line.split()[1] == "/dev/pts" and "gid=5" in line for line in mounts)


@dataclass(frozen=True)
class Key:
    """A key pair made by ssh-keygen."""

    path: Path

    @property
    def public(self) -> str:
        return self.path.with_name(self.path.name + ".pub").read_text().strip()

    @property
    def fingerprint(self) -> str:
        out = subprocess.run(
            ["ssh-keygen", "-lf", str(self.path)], capture_output=True, text=True, check=True
        )
        return out.stdout.split()[1]


def let_others_in(folder: Path) -> None:
    """Let every account enter a folder of pytest; wider modes stay."""
    for each in (folder, *folder.parents):
        mode = each.stat().st_mode & 0o7777
        if mode & 0o055 != 0o055:
            each.chmod(mode | 0o755)


def make_key(path: Path, *options: str) -> Key:
    """A new key pair; Ed25519 unless `options` say otherwise."""
    kind = options or ("-t", "ed25519")
    command = ["ssh-keygen", "-q", "-N", "", "-C", path.name, "-f", str(path), *kind]
    subprocess.run(command, check=True)
    return Key(path)


class Screen:
    """The other side of a terminal: types, and reads the output."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, size)

    def expect(self, text: str) -> None:
        """Wait until `text` was shown."""

        def look() -> bool:
            with contextlib.suppress(OSError):  # no output yet, or the other side has exited
                self.seen += os.read(self.descriptor, 65536).decode(errors="replace")
            return text in self.seen

        try:
            until(look, f"{text!r} on the terminal")
        except AssertionError as error:
            raise AssertionError(f"{error}, which shows {self.seen!r}") from None


class Box:
    """A machine with a key that may log in, an SSH client for it, and its log."""

    def __init__(
        self, folder: Path, key: Key, machine: LocalMachine | None = None, **how: Any
    ) -> None:
        self.folder = folder
        self.key = key
        self.port = free_port()
        self.http_port = free_port()
        self.machine = machine or LocalMachine(folder, **how)
        self.user = self.machine.user
        self.log_path = folder / "log"
        self.error_path = folder / "errors"

    @property
    def environ(self) -> dict[str, str]:
        """The default environment of the agent."""
        return {
            "SSH_AUTHORIZED_KEYS": self.key.public,
            "SWARM_LISTEN": f"127.0.0.1:{self.port}",
            "SWARM_HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            "SWARM_LOG_FORMAT": "json",
            "SWARM_USER": self.user,
        }

    def start(
        self,
        environ: Mapping[str, str] | None = None,
        *command: str,
        before: str = "",
        **how: Any,
    ) -> "Box":
        """Boot without waiting; `command` is given to `run --`.

        `before` is a shell command that prepares the machine before the agent becomes its init.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log, self.error_path.open("wb") as errors:
            self.machine.start(
                self.environ | dict(environ or {}),
                command=_agent(self.machine.program, command, before),
                **({"stdout": log, "stderr": errors} | how),
            )
        return self

    def boot(self, environ: Mapping[str, str] | None = None, *command: str, **how: Any) -> "Box":
        """Boot and wait until SSH answers."""
        self.start(environ, *command, **how)
        until(self.answers, f"an SSH banner; the log says:\n{self.said()}")
        return self

    def answers(self) -> bool:
        """Whether the gate sends a banner."""
        assert self.machine.running(), f"the agent ended:\n{self.said()}"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                return probe.recv(4) == b"SSH-"
        except OSError:
            return False

    def said(self) -> str:
        """Everything on stdout and stderr so far."""
        return self.log_path.read_text() + self.error_path.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        # The command of `run --` shares stdout; a line without its end is still being written.
        lines = self.log_path.read_text(errors="replace").splitlines(keepends=True)
        whole = (line for line in lines if line[0] == "{" and line[-1] == "\n")
        # Do not parse a log of many megabytes repeatedly for one line.
        records = [json.loads(line) for line in whole if f'"event": "{name}"' in line]
        return [record for record in records if record["event"] == name]

    def event(self, name: str, **fields: object) -> dict[str, Any]:
        """The first log line of an event with these fields, once there is one."""

        def look() -> list[dict[str, Any]]:
            return [
                record
                for record in self.events(name)
                if all(record[field] == value for field, value in fields.items())
            ]

        return until(look, f"the event {name} {fields}; the log says:\n{self.said()}")[0]

    def ssh_options(self, key: Key | None = None) -> list[str]:
        """Options for ssh, scp and sftp that ignore the configuration of the tester's account."""
        options = {
            "IdentityFile": str((key or self.key).path),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "StrictHostKeyChecking": "accept-new",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
            # ssh's own choice costs the client 65 ms of CPU, more than the rest of a login; the
            # tests of `swarm`, which use people's own configuration, keep it.
            "KexAlgorithms": "curve25519-sha256",
            "Port": str(self.port),
        }
        return ["-F", "none", *(f"-o{name}={value}" for name, value in options.items())]

    def ssh_command(self, *words: str, options: Sequence[str] = (), user: str = "") -> list[str]:
        """The command line of a login."""
        target = f"{user or self.user}@127.0.0.1"
        return ["ssh", *self.ssh_options(), *options, target, *words]

    def ssh(
        self,
        *words: str,
        options: Sequence[str] = (),
        user: str = "",
        timeout: float = DEADLINE,
        **run: Any,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command over SSH."""
        how = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL} | run
        if "input" in how:
            del how["stdin"]
        command = self.ssh_command(*words, options=options, user=user)
        result: subprocess.CompletedProcess[str] = subprocess.run(
            command, timeout=timeout, check=False, **how
        )
        return result

    def agent_command(self, *words: str) -> tuple[list[str], dict[str, str]]:
        """`swarm-agent` in the machine, as root or its only user: command and environment."""
        command = [self.machine.program, *words]
        if self.machine.namespaces:
            command = ["nsenter", "-t", str(self.machine.init), "-m", "-p", *command]
        return command, {"PATH": os.environ["PATH"], "SWARM_RUN_DIR": self._run_dir()}

    def agent(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run `swarm-agent` inside the machine."""
        command, environ = self.agent_command(*words)
        return subprocess.run(
            command, env=environ, capture_output=True, text=True, check=False, timeout=DEADLINE
        )

    def ask(self, path: str) -> Any:
        """The control socket's answer, without the cost of a command; None while there is none.

        For waiting; to test commands as people type them, use `agent`.
        """
        root = f"/proc/{self.machine.init}/root" if self.machine.namespaces else ""
        answer = b""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(f"{root}{self._run_dir()}/{places.SOCKET}")
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n".encode())
            while part := connection.recv(1 << 16):
                answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        return json.loads(body) if b" 200 " in head.partition(b"\r\n")[0] else None

    def _run_dir(self) -> str:
        return "/run/swarm" if self.machine.namespaces else str(self.folder / "run")

    def fetch(self, path: str, **headers: str) -> tuple[int, Message, str]:
        """GET from the agent's HTTP, even if the answer is an error. Raises `OSError`."""
        url = f"http://127.0.0.1:{self.http_port}{path}"
        request = urllib.request.Request(url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    def metric(self, name: str) -> str:
        """The value of one series, named as in the exposition; "nan" if it cannot be read."""
        try:
            body = self.fetch("/metrics")[2]
        except OSError:
            return "nan"
        match = re.search(rf"^{re.escape(name)} (\S+)$", body, re.MULTILINE)
        return "nan" if match is None else match[1]

    def stop(self, timeout: float = DEADLINE) -> int:
        """Stop the machine with SIGTERM; returns its exit status."""
        self.machine.signal()
        return self.machine.wait(timeout)


def _agent(program: str, command: Sequence[str], before: str) -> list[str]:
    words = [program, "run", *(("--", *command) if command else ())]
    return ["sh", "-c", f'{before}; exec "$@"', "sh", *words] if before else words


def ready(box: Box) -> Box:
    """The machine, once its control socket answers."""
    until(lambda: box.ask("/v1/status"), f"the control socket; {box.said()}")
    return box


class Client:
    """A login that talks to cat(1)."""

    def __init__(self, box: Box) -> None:
        self.process = subprocess.Popen(
            box.ssh_command("cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.says("hello") == "hello\n"

    def says(self, line: str) -> str:
        """The echo of a line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def end(self) -> int:
        """Log out; the exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(30)


@contextlib.contextmanager
def shell(box: Box) -> Iterator[Screen]:
    """An interactive login on a terminal of its own."""
    pid, descriptor = pty.fork()
    if pid == 0:
        command = box.ssh_command()
        os.execvp(command[0], command)
    try:
        yield Screen(descriptor)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(descriptor)
