"""A stock OpenSSH client gets a full login through the agent."""

import asyncio
import hashlib
import os
import pty
import shlex
import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.claims import free_port
from tests.conftest import BoxMaker
from tests.support import (
    Box,
    Key,
    Screen,
    command_lines,
    let_others_in,
    make_key,
    terminals_work,
    until,
)

BULK = 200_000_000


@pytest.fixture(scope="module")
def bulk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file of 200 MB, and its SHA-256."""
    path = tmp_path_factory.mktemp("bulk") / "bulk"
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(BULK // 10_000_000):
            block = os.urandom(10_000_000)
            digest.update(block)
            file.write(block)
    return path, digest.hexdigest()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_command_gives_output_and_exit_status(shared_box: Box, status: int) -> None:
    result = shared_box.ssh(f"echo out; echo err >&2; exit {status}")
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", status)


def test_a_client_with_its_own_choice_of_algorithms_logs_in(shared_box: Box) -> None:
    own = [word for word in shared_box.ssh_command("true") if "KexAlgorithms" not in word]
    subprocess.run(own, check=True, timeout=60)


def test_session_environment_names_client_and_session(shared_box: Box) -> None:
    result = shared_box.ssh("echo $SWARM_CLIENT $SWARM_SESSION")
    client, session = result.stdout.split()
    assert client == "127.0.0.1"
    assert shared_box.event("ssh.session.opened", session=session)["client"] == client


def test_session_does_not_inherit_the_agents_environment(shared_box: Box) -> None:
    assert "SSH_AUTHORIZED_KEYS" not in shared_box.ssh("env").stdout


def test_bulk_through_stdin_and_stdout_is_unchanged(
    shared_box: Box, bulk: tuple[Path, str]
) -> None:
    path, digest = bulk
    with path.open("rb") as file:
        client = subprocess.Popen(shared_box.ssh_command("cat"), stdin=file, stdout=subprocess.PIPE)
        assert client.stdout is not None
        assert hashlib.file_digest(client.stdout, "sha256").hexdigest() == digest  # type: ignore[arg-type]
    assert client.wait() == 0


def test_sftp_both_ways_is_unchanged(
    shared_box: Box, bulk: tuple[Path, str], tmp_path: Path
) -> None:
    path, digest = bulk
    back = tmp_path / "back"
    batch = f"put {path} there\nget there {back}\nrm there\n"
    target = f"{shared_box.user}@127.0.0.1"
    command = ["sftp", *shared_box.ssh_options(), "-b", "-", target]
    subprocess.run(command, input=batch, text=True, check=True, capture_output=True)
    assert sha256(back) == digest


def test_scp_and_rsync_bring_files_back_unchanged(shared_box: Box, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(1_000_000))
    target = f"{shared_box.user}@127.0.0.1"
    scp = ["scp", *shared_box.ssh_options()]
    subprocess.run([*scp, str(source), f"{target}:by-scp"], check=True)
    subprocess.run([*scp, f"{target}:by-scp", str(tmp_path / "scp")], check=True)
    shell = shlex.join(["ssh", *shared_box.ssh_options()])
    rsync = ["rsync", "-e", shell]
    subprocess.run([*rsync, str(source), f"{target}:by-rsync"], check=True)
    subprocess.run([*rsync, f"{target}:by-rsync", str(tmp_path / "rsync")], check=True)
    assert sha256(tmp_path / "scp") == sha256(tmp_path / "rsync") == sha256(source)


def test_git_clone_and_push_over_ssh(shared_box: Box, tmp_path: Path) -> None:
    assert shared_box.ssh("git init -q --bare project.git").returncode == 0
    environ = os.environ | {"GIT_SSH_COMMAND": shlex.join(["ssh", *shared_box.ssh_options()])}
    url = f"{shared_box.user}@127.0.0.1:project.git"

    def git(*words: str, cwd: Path = tmp_path) -> str:
        command = ["git", "-c", "user.name=ann", "-c", "user.email=ann@example.org", *words]
        return subprocess.run(
            command, cwd=cwd, env=environ, check=True, capture_output=True, text=True
        ).stdout

    git("clone", "-q", url, "one")
    (tmp_path / "one" / "file").write_text("content\n")
    git("add", "file", cwd=tmp_path / "one")
    git("commit", "-qm", "first", cwd=tmp_path / "one")
    git("push", "-q", "origin", "HEAD", cwd=tmp_path / "one")
    git("clone", "-q", url, "two")
    assert (tmp_path / "two" / "file").read_text() == "content\n"


@pytest.mark.skipif(
    not terminals_work(), reason="sshd without root needs devpts mounted with gid=5"
)
def test_terminal_follows_resizes(shared_box: Box) -> None:
    command = shared_box.ssh_command(options=["-tt"])
    client, descriptor = pty.fork()
    if client == 0:
        os.execvp(command[0], command)
    screen = Screen(descriptor)
    screen.resize(24, 80)
    screen.type("PS1=; stty size; tty | cut -c1-9\n")
    screen.expect("24 80")
    screen.expect("/dev/pts/")
    screen.resize(50, 132)
    screen.type('while [ "$(stty size)" != "50 132" ]; do sleep 0.1; done; echo fol""lowed\n')
    screen.expect("followed")
    screen.type("exit 3\n")
    assert os.waitstatus_to_exitcode(os.waitpid(client, 0)[1]) == 3
    os.close(descriptor)


class Echo:
    """A TCP server that echoes one message."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._server.accept()
            with connection:
                connection.sendall(b"echo " + connection.recv(100))


def ask(port: int, text: bytes, prologue: bytes = b"") -> bytes:
    """The reply from a port; empty while it is not open."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            if prologue:
                for part in (b"\x05\x01\x00", prologue):
                    connection.sendall(part)
                    connection.recv(100)
            connection.sendall(text)
            return connection.recv(100)
    except OSError:
        return b""


def test_local_remote_and_dynamic_forwarding(shared_box: Box) -> None:
    echo, local, remote, dynamic = Echo(), free_port(), free_port(), free_port()
    options = [
        *("-N", "-L", f"127.0.0.1:{local}:127.0.0.1:{echo.port}"),
        *("-R", f"127.0.0.1:{remote}:127.0.0.1:{echo.port}", "-D", f"127.0.0.1:{dynamic}"),
    ]
    client = subprocess.Popen(shared_box.ssh_command(options=options))
    socks = b"\x05\x01\x00\x01" + socket.inet_aton("127.0.0.1") + struct.pack(">H", echo.port)
    try:
        for port, prologue in ((local, b""), (remote, b""), (dynamic, socks)):
            answer = until(lambda p=port, q=prologue: ask(p, b"hello", q), f"port {port}")  # type: ignore[misc]
            assert answer == b"echo hello"
    finally:
        client.terminate()
        client.wait()


def test_agent_forwarding(shared_box: Box, key: Key, tmp_path: Path) -> None:
    path = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    environ = os.environ | {"SSH_AUTH_SOCK": str(path)}
    try:
        until(path.exists, "the agent's socket")
        subprocess.run(
            ["ssh-add", "-q", str(key.path)], env=environ, check=True, stderr=subprocess.DEVNULL
        )
        result = shared_box.ssh("ssh-add -l", options=["-A"], env=environ)
        assert key.fingerprint in result.stdout
    finally:
        agent.terminate()
        agent.wait()


@pytest.mark.xdist_group("heavy")
def test_fifty_sessions_at_once(shared_box: Box) -> None:
    clients = [
        subprocess.Popen(
            shared_box.ssh_command(f"echo {number}; read -r line; exit 0"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(50)
    ]
    for number, client in enumerate(clients):
        assert client.stdout is not None
        assert client.stdout.readline() == f"{number}\n"
    report = shared_box.agent("sessions", "--json")
    assert report.stdout.count('"fingerprint"') >= 50
    for client in clients:
        client.communicate("\n")
    assert [client.wait() for client in clients] == [0] * 50


def test_asyncssh_client_logs_in(shared_box: Box, key: Key) -> None:
    async def login() -> str:
        async with asyncssh.connect(
            "127.0.0.1",
            shared_box.port,
            username=shared_box.user,
            client_keys=[str(key.path)],
            known_hosts=None,
            config=None,
        ) as connection:
            result = await connection.run("echo hello", check=True)
            return str(result.stdout)

    assert asyncio.run(login()) == "hello\n"


def test_session_is_reported_with_key_traffic_and_reason(box: Box, key: Key) -> None:
    client = subprocess.Popen(
        box.ssh_command("head -c 1000000 /dev/zero; read -r line"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert client.stdout is not None
    assert len(client.stdout.read(1_000_000)) == 1_000_000
    table = until(lambda: box.agent("sessions").stdout, "the control socket")
    opened = box.event("ssh.session.opened")
    for word in (opened["session"], box.user, "ann", "127.0.0.1", "KiB"):
        assert word in table
    client.communicate(b"\n")
    closed = box.event("ssh.session.closed", session=opened["session"])
    assert closed["key"] == "ann"
    assert closed["fingerprint"] == key.fingerprint
    assert closed["reason"] == "logged out"
    assert closed["bytes_out"] > 1_000_000
    assert 0 < closed["bytes_in"] < 100_000
    assert "(none)" not in box.agent("sessions", "--json").stdout


def test_lost_connection_is_told_apart_from_a_logout(box: Box) -> None:
    client = subprocess.Popen(
        box.ssh_command("echo in; sleep 1000"), stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    client.stdout.readline()
    client.kill()
    client.wait()
    assert box.event("ssh.session.closed")["reason"] == "connection lost"


def test_wrong_key_gets_nowhere_and_is_one_line(box: Box, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")
    result = subprocess.run(
        ["ssh", *box.ssh_options(stranger), f"{box.user}@127.0.0.1", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 255
    assert "Permission denied (publickey)" in result.stderr
    box.event("ssh.connection.closed", verdict="failed", user=box.user)
    assert len(box.events("ssh.connection.closed")) == 1


@pytest.mark.root
@pytest.mark.parametrize("user", ["root", "nobody", "nosuchuser"])
def test_nobody_but_the_login_account_gets_in(box: Box, user: str) -> None:
    assert box.ssh("true", user=user).returncode == 255
    box.event("ssh.connection.closed", verdict="invalid user")


PIPES: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


def test_keys_of_the_folder_come_and_go_while_it_runs(
    make_box: BoxMaker, key: Key, tmp_path: Path
) -> None:
    folder = tmp_path / "keys.d"
    folder.mkdir(mode=0o755)
    box = make_box()
    box.boot({"SWARM_KEYS_DIR": str(folder)})
    other = make_key(tmp_path / "other")
    # Changes before the folder is watched count too, so the test need not wait.
    (folder / "bob.pub").write_text(other.public + "\nnot a key\n")
    installed = box.event("ssh.key.installed", key="bob")
    assert installed["fingerprint"] == other.fingerprint
    assert box.event("ssh.key.refused")["source"] == str(folder / "bob.pub")
    box.key = other
    assert box.ssh("echo in").stdout == "in\n"
    assert box.event("ssh.session.opened", key="bob")
    (folder / "bob.pub").unlink()
    assert box.event("ssh.key.removed")["key"] == "bob"
    assert "Permission denied" in box.ssh("echo in").stderr
    box.key = key
    assert box.ssh("echo in").stdout == "in\n"


@pytest.mark.root
def test_a_key_that_went_while_the_machine_was_off_lets_nobody_in(
    make_box: BoxMaker, tmp_path: Path, key: Key
) -> None:
    """The run folder survives a restarted container."""
    folder = tmp_path / "keys.d"
    folder.mkdir(mode=0o755)
    left_over = f"mkdir -p -m 755 /run/swarm; echo '{key.public}' >/run/swarm/authorized_keys"
    box = make_box()
    settings = {"SWARM_KEYS_DIR": str(folder), "SSH_AUTHORIZED_KEYS": ""}
    box.boot(settings, before=f"{left_over}; chgrp 1000 /run/swarm/authorized_keys")
    assert "Permission denied" in box.ssh("echo in").stderr


@pytest.mark.root
def test_a_container_without_the_right_to_trace_lets_its_user_in(make_box: BoxMaker) -> None:
    """Docker's default capabilities: sshd reads its configuration through our descriptors."""
    box = make_box()
    box.boot(prefix=["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"])
    assert box.ssh("echo in").stdout == "in\n"


@pytest.mark.root
def test_a_secret_that_is_no_text_locks_nobody_out(make_box: BoxMaker) -> None:
    box = make_box()
    box.boot(prefix=["env", b"GITHUB_TOKEN=\xe9t\xe9"])
    assert box.ssh("printenv GITHUB_TOKEN | od -An -tx1").stdout.split() == ["e9", "74", "e9", "0a"]


def test_passwords_are_never_asked_for(shared_box: Box) -> None:
    options = ["-oPubkeyAuthentication=no", "-oPreferredAuthentications=password"]
    result = shared_box.ssh("true", options=options)
    assert "Permission denied (publickey)" in result.stderr


def test_client_that_says_nothing_is_closed_after_the_grace_time(make_box: BoxMaker) -> None:
    box = make_box().boot({"SWARM_LOGIN_GRACE_TIME": "1s"})
    with socket.create_connection(("127.0.0.1", box.port)) as silent:
        silent.settimeout(20)
        assert silent.recv(4) == b"SSH-"
        while silent.recv(1000):
            pass


def test_only_modern_algorithms_are_offered(shared_box: Box) -> None:
    with socket.create_connection(("127.0.0.1", shared_box.port)) as connection:
        connection.sendall(b"SSH-2.0-test\r\n")
        offer = b""
        while b"none,zlib" not in offer:
            offer += connection.recv(4096)
    for weak in (b"sha1", b"-cbc", b"nistp", b"diffie-hellman", b"umac-64", b"ssh-rsa", b"3des"):
        assert weak not in offer
    assert b"curve25519-sha256" in offer


@pytest.mark.root
def test_an_ordinary_user_serves_itself(make_box: BoxMaker) -> None:
    """Without root the same program serves the account that runs it, and nobody else."""
    box = make_box()
    drop = 'set -- setpriv --reuid=1000 --regid=1000 --clear-groups "$@"'
    folders = {"SWARM_VOLUME": "/home/dev/volume", "SWARM_RUN_DIR": "/home/dev/run"}
    box.boot(folders | {"SWARM_USER": ""}, before=drop)
    assert box.event("boot.listening")["user"] == "dev"
    assert box.ssh("id -u; tty", options=["-tt"]).stdout.split() == ["1000", "/dev/pts/0"]
    assert (box.folder / "home/dev/volume/.swarm").stat().st_uid == 1000
    assert box.ssh("true", user="root").returncode == 255
    assert box.stop() == 0
    other = make_box().start(folders | {"SWARM_USER": "daemon"}, before=drop)
    assert other.machine.wait(30) == os.EX_CONFIG
    assert "only root can let daemon log in" in other.event("boot.failed")["problem"]


def test_chosen_variables_reach_the_sessions_and_nothing_else(make_box: BoxMaker) -> None:
    secret = """sk "quoted" 'twice' \\ $HOME `x` #y %z"""
    box = make_box()
    box.boot(
        {
            "ANTHROPIC_API_KEY": secret,
            "MY_TOKEN": "mine",
            "OTHER": "hidden",
            "GITHUB_TOKEN": "two\nlines",
            "FLY_REGION": "ams",
            "FLY_API_TOKEN": "the platform's",
            "SWARM_SESSION_ENV": "ANTHROPIC_API_KEY MY_TOKEN GITHUB_TOKEN",
            "SWARM_AGENTS": "4",
        }
    )
    for words in (("env",), ("sh -l -c env",)):
        said = box.ssh(*words).stdout.splitlines()
        assert f"ANTHROPIC_API_KEY={secret}" in said
        assert "MY_TOKEN=mine" in said
        assert "FLY_REGION=ams" in said
        assert not [line for line in said if "hidden" in line or "platform" in line]
        [node] = [line for line in said if line.startswith("NODE_OPTIONS=")]
        heap = int(node.rpartition("=")[2])
        assert 0 < heap < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4 >> 20
    assert "GITHUB_TOKEN" in box.event("agent.notice", part="session_env")["notice"]


@pytest.mark.long
def test_secrets_of_sessions_are_on_no_command_line_and_in_no_file(
    make_box: BoxMaker, tmp_path: Path
) -> None:
    secret = f"sk-{os.urandom(8).hex()}"
    # sshd overwrites its command line with its title: this keeps the original.
    program, given = tmp_path / "sshd", tmp_path / "given"
    program.write_text(f'#!/bin/sh\n(echo "$*"; env) >>{given}\nexec /usr/sbin/sshd "$@"\n')
    program.chmod(0o755)
    let_others_in(tmp_path)
    box = make_box()
    box.boot({"ANTHROPIC_API_KEY": secret, "SWARM_SSHD": str(program)})
    with subprocess.Popen(box.ssh_command("echo in; cat"), **PIPES) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"in\n"
        assert not [line for line in command_lines() if secret in line]
        assert "-i -e -f /proc" in given.read_text()
        assert secret not in given.read_text()
        found = box.agent_command("status")[0][:-2]
        grep = subprocess.run(
            [*found, "grep", "-rIl", secret, "/run", "/tmp", "/mnt"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert grep.stdout == ""
        peek = box.ssh("cat /proc/1/environ /proc/1/fd/* /run/swarm/sshd_config")
        assert secret not in peek.stdout
        session.kill()
    assert secret not in box.said()
