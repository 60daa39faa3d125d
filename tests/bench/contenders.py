"""The contenders: the agent as it ships, a bare sshd, supervisord with sshd, and others.

Each runs as PID 1 of the same kind of machine (deploy/machine.py), with the same account and key.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.header import header
from deploy.machine import LOGIN, LocalMachine
from tests.bench.table import AGENT
from tests.claims import free_port
from tests.support import Key, until

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".bench"
SSHD, SUPERVISORD = "bare sshd", "supervisord + sshd"
TINI, S6 = "tini + sshd", "s6 + sshd"
STACK = "supervisord + sshd + fail2ban + node exporter"

# /run/sshd exists before: creating it is not part of any contender's start.
_GO = 'mkdir -p /run/sshd; echo ready; read -r go; exec "$@" </dev/null >>"$LOG" 2>&1'


class Unavailable(Exception):
    """A peer or a facility is missing; the message says which and why."""


@dataclass(frozen=True)
class Contender:
    """How to run one of the contenders."""

    name: str
    command: tuple[str, ...]
    environ: tuple[tuple[str, str], ...]
    port: int
    key: Key
    folder: Path
    hello: bytes = b""
    """The bytes that the proxy sends first on each connection."""

    @property
    def log(self) -> Path:
        """Its output, in all its runs."""
        return self.folder / "log"

    @contextmanager
    def prepared(self) -> Iterator["Prepared"]:
        """A machine that waits for the order to exec the contender; stopped after the block."""
        machine = LocalMachine(self.folder / "machine")
        machine.start(
            dict(self.environ) | {"LOG": str(self.log)},
            command=["sh", "-c", _GO, "sh", *self.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            yield Prepared(self, machine)
        finally:
            machine.kill()

    @contextmanager
    def running(self) -> Iterator["Prepared"]:
        """The contender, answering."""
        with self.prepared() as ready:
            ready.go()
            until(ready.banner, f"a banner of {self.name}")
            yield ready

    def ssh(self, *words: str, options: tuple[str, ...] = ()) -> list[str]:
        """The command line of a login."""
        fixed = {
            "IdentityFile": str(self.key.path),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "StrictHostKeyChecking": "accept-new",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
            "Port": str(self.port),
        }
        listed = [f"-o{name}={value}" for name, value in fixed.items()]
        return ["ssh", "-F", "none", *listed, *options, f"{LOGIN}@127.0.0.1", *words]


class Prepared:
    """A machine whose shell waits for the order."""

    def __init__(self, contender: Contender, machine: LocalMachine) -> None:
        self.contender = contender
        self.machine = machine
        process = machine.process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        self._stdin = process.stdin

    @property
    def pid(self) -> int:
        """The contender's process id, as the host sees it; the same before and after exec."""
        return self.machine.init

    def go(self) -> None:
        """Exec the contender now."""
        self._stdin.write(b"go\n")
        self._stdin.flush()

    def agent_command(self, *words: str) -> list[str]:
        """The command line of one of the agent's own commands, in the machine."""
        program = self.contender.command[0]
        return ["nsenter", "-t", str(self.pid), "-m", "-p", program, *words]

    def banner(self) -> bool:
        """Whether SSH answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.contender.port), timeout=60) as probe:
                probe.sendall(self.contender.hello)
                return probe.recv(4) == b"SSH-"
        except OSError:
            return False


def agent(key: Key) -> Contender:
    """swarm-agent, installed by `install_agent`."""
    folder, port = work_folder("agent"), free_port()
    venv = WORK / "venv"
    environ = {
        "SSH_AUTHORIZED_KEYS": key.public,
        "SWARM_LISTEN": f"127.0.0.1:{port}",
        "SWARM_USER": LOGIN,
        "SWARM_LOG_FORMAT": "json",
        "SWARM_MAX_CONNECTIONS_PER_MINUTE": "100000",
        "SWARM_SLEEP_MODE": "stop",
        # A check whether it answers is a connection without a login, after which it would sleep.
        "SWARM_WAKE_WINDOW": "1h",
        "SWARM_HTTP_LISTEN": f"127.0.0.1:{free_port()}",
    }
    command = (str(venv / "bin" / "swarm-agent"), "run")
    return Contender(AGENT, command, tuple(environ.items()), port, key, folder)


def behind_proxy(contender: Contender) -> Contender:
    """The agent as it runs behind the platform's proxy."""
    environ = {"SWARM_PROXY_PROTOCOL": "required", "SWARM_PROXY_NETWORKS": "127.0.0.0/8"}
    hello = header(2, ("192.0.2.1", 5), ("10.0.0.1", 22))
    return replace(contender, environ=(*contender.environ, *environ.items()), hello=hello)


def bare_sshd(key: Key) -> Contender:
    """`sshd -D` with an equal configuration."""
    folder, port = work_folder("sshd"), free_port()
    config = _sshd_config(folder, port, key)
    command = ("/usr/sbin/sshd", "-D", "-f", str(config))
    return Contender(SSHD, command, (), port, key, folder)


def supervised_sshd(key: Key) -> Contender:
    """supervisord with one program, sshd, as Debian ships it. Raises `Unavailable`."""
    return _supervisord(SUPERVISORD, key, {})


def stack(key: Key) -> Contender:
    """The usual hand-built machine. Raises `Unavailable`."""
    from tests.bench import fail2ban

    needed("fail2ban-server", "fail2ban")
    needed("prometheus-node-exporter", "prometheus-node-exporter")
    folder = work_folder("stack")
    shutil.rmtree(folder / "config", ignore_errors=True)
    log = folder / "auth.log"
    log.touch()
    exporter = f"prometheus-node-exporter --web.listen-address=127.0.0.1:{free_port()}"
    return _supervisord(
        STACK, key, {"fail2ban": " ".join(fail2ban.server(folder, log)), "exporter": exporter}
    )


def _supervisord(name: str, key: Key, beside: dict[str, str]) -> Contender:
    needed("supervisord", "supervisor")
    folder, port = work_folder(name.replace(" ", "")), free_port()
    config = folder / "supervisord.conf"
    sshd = _sshd_config(folder, port, key)
    programs = {"sshd": f"/usr/sbin/sshd -D -e -f {sshd}"} | beside
    config.write_text(
        "[supervisord]\nnodaemon=true\nuser=root\nlogfile=/dev/null\nlogfile_maxbytes=0\n"
        "pidfile=/run/supervisord.pid\n"
        + "".join(
            f"[program:{program}]\ncommand={command}\nautorestart=true\n"
            for program, command in programs.items()
        )
    )
    command = ("/usr/bin/supervisord", "-c", str(config))
    return Contender(name, command, (), port, key, folder)


def tini_sshd(key: Key) -> Contender:
    """tini with `sshd -D`. Raises `Unavailable`."""
    needed("tini", "tini")
    folder, port = work_folder("tini"), free_port()
    config = _sshd_config(folder, port, key)
    command = ("/usr/bin/tini", "--", "/usr/sbin/sshd", "-D", "-e", "-f", str(config))
    return Contender(TINI, command, (), port, key, folder)


def s6_sshd(key: Key) -> Contender:
    """s6-svscan with one service, `sshd -D`. Raises `Unavailable`."""
    program = needed("s6-svscan", "s6")
    folder, port = work_folder("s6-sshd"), free_port()
    config = _sshd_config(folder, port, key)
    scan = folder / "scan"
    shutil.rmtree(scan, ignore_errors=True)
    run = scan / "sshd" / "run"
    run.parent.mkdir(parents=True)
    run.write_text(f"#!/bin/sh\nexec /usr/sbin/sshd -D -e -f {config}\n")
    run.chmod(0o755)
    return Contender(S6, (program, str(scan)), (), port, key, folder)


def needed(program: str, package: str) -> str:
    """The path of a program, installed if it is missing. Raises `Unavailable`."""
    if not shutil.which(program):
        install(package)
    return shutil.which(program) or program


def install(package: str) -> None:
    """Install a Debian package. Raises `Unavailable`."""
    if os.geteuid() != 0:
        raise Unavailable(f"{package} is not installed, and only root can install it")
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    done = subprocess.run(command, env=environ, capture_output=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{package} cannot be installed: {done.stderr.decode()[-200:]}")


def work_folder(name: str) -> Path:
    """The benchmark's own folder, created if it is missing."""
    path = WORK / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def _sshd_config(folder: Path, port: int, key: Key) -> Path:
    host_key = folder / "host_key"
    if not host_key.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)]
        subprocess.run(command, check=True)
    keys = folder / "authorized_keys"
    keys.write_text(key.public + "\n")
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 0.0.0.0:{port}\nHostKey {host_key}\nAuthorizedKeysFile {keys}\n"
        f"AllowUsers {LOGIN}\nUsePAM no\nPidFile none\nStrictModes no\n"
    )
    return config


def install_agent() -> None:
    """Install swarm-agent the way it ships: a wheel, locked hashes, bytecode."""
    venv = WORK / "venv"
    shutil.rmtree(venv, ignore_errors=True)
    # A copy, not a link: other programs keep the original interpreter in memory.
    # Without pip and setuptools: they leave hooks that Python reads at every start.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    python = str(ROOT / ".venv" / "bin" / "python")
    make = [python, "-m", "venv", "--copies", "--without-pip", str(venv)]
    subprocess.run(make, env=environ, check=True)
    pip = [python, "-m", "pip", "--python", str(venv / "bin" / "python"), "install", "-qq"]
    lock = ["--require-hashes", "-r", str(ROOT / "requirements.lock")]
    subprocess.run([*pip, *lock], env=environ, check=True)
    wheels = WORK / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    build = [python, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(wheels), str(ROOT)], env=environ, check=True)
    wheel = str(next(wheels.glob("*.whl")))
    subprocess.run([*pip, "--no-deps", wheel], env=environ, check=True)
    library = str(next(venv.glob("lib/python3*")))
    compiling = [str(venv / "bin" / "python"), "-m", "compileall", "-q", library]
    subprocess.run(compiling, env=environ, check=True)
