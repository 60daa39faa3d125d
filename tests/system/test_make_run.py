"""If `make run` cannot start, it says why at once, and leaves nothing behind."""

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import console
from tests.claims import free_port
from tests.support import until

AT_ONCE = 60.0
"""Seconds on a busy computer; less than one on a quiet one."""


def make_run(*prefix: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    given = {"PORT": str(free_port()), "HTTP_PORT": str(free_port()), **environ}
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [*prefix, sys.executable, "-m", "deploy.run"],
            env={"PATH": os.environ["PATH"], "RUN_FOLDER": folder, **given},
            capture_output=True,
            text=True,
            check=False,
            timeout=AT_ONCE,
        )


def test_a_port_that_is_taken_is_one_line_that_names_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = make_run(PORT=str(port))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"make run: port {port} of 127.0.0.1 cannot be used (Address already in use); "
        f"another one: PORT={port % 65535 + 1} make run\n"
    )


def test_one_machine_a_folder(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = make_run(RUN_FOLDER=str(tmp_path))
    assert done.returncode == 1
    assert "a machine runs in this folder already" in done.stderr


def test_a_setting_that_cannot_be_used_is_said_before_anything_starts() -> None:
    done = make_run(SWARM_IDLE_TIMEOUT="soon", SWARM_IDLE_TIMOUT="1m")
    assert done.returncode == 1
    assert "SWARM_IDLE_TIMEOUT = 'soon' (environment): expected a duration" in done.stderr
    assert "did you mean SWARM_IDLE_TIMEOUT?" in done.stderr


# As in a container with few privileges. $0: a folder with accounts instead of /etc's.
WITHOUT_SYS_ADMIN = """
mount --make-rprivate /
for file in passwd group shadow; do mount --bind "$0/$file" "/etc/$file"; done
exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "$@"
"""


@pytest.fixture
def container(tmp_path: Path) -> Iterator[list[str]]:
    """A prefix for root's commands: no right to create namespaces, and the account `tester`."""
    home = tempfile.mkdtemp(prefix="tester", dir="/tmp")  # short, for sockets
    os.chown(home, 1000, 1000)
    for name, line in (
        ("passwd", f"tester:x:1000:1000::{home}:/bin/bash"),
        ("group", "tester:x:1000:"),
        ("shadow", "tester:*:19000:0:99999:7:::"),
    ):
        root = Path("/etc", name).read_text().partition("\n")[0]
        (tmp_path / name).write_text(f"{root}\n{line}\n")
    yield ["unshare", "--mount", "sh", "-c", WITHOUT_SYS_ADMIN, str(tmp_path)]
    shutil.rmtree(home)


@pytest.mark.root
def test_root_without_namespaces_and_without_an_account_hears_what_is_missing(
    container: list[str], tmp_path: Path
) -> None:
    accounts = (tmp_path / "passwd").read_text().splitlines()
    (tmp_path / "passwd").write_text(accounts[0] + "\n")
    done = make_run(*container)
    assert done.returncode == 1
    assert "as root it needs its own namespaces, which this computer refuses" in done.stderr
    assert "--privileged" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.root
def test_root_without_namespaces_runs_it_as_the_ordinary_account(
    container: list[str], tmp_path: Path
) -> None:
    port = free_port()
    with (tmp_path / "out").open("wb") as out:
        running = subprocess.Popen(
            [*container, sys.executable, "-m", "deploy.run"],
            env={"PATH": os.environ["PATH"], "PORT": str(port), "HTTP_PORT": str(free_port())},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        until(lambda: "log in" in (tmp_path / "out").read_text(), "the closing block")
        said = (tmp_path / "out").read_text()
        assert "running as tester instead" in said
        found = re.search(r"log in +ssh -F (\S+) swarm", said)
        assert found is not None
        enter = ["nsenter", "-t", str(running.pid), "-m"]  # its accounts: sshd admits nobody else
        command = [
            *enter,
            "ssh",
            "-F",
            found[1],
            "swarm",
            "id -un; ~/.local/bin/swarm-agent status",
        ]

        def answer() -> str:
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout

        until(lambda: "awake since" in answer(), "the status")
        assert answer().startswith("tester\n")
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)
    assert "stopped after" in (tmp_path / "out").read_text()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            '{"event": "ssh.session.opened", "level": "info", "user": "dev", "client": "192.0.2.1",'
            ' "key": "ann"}',
            "dev logged in from 192.0.2.1 with the key ann",
        ),
        ('{"event": "boot.phase", "level": "info", "phase": "keys", "seconds": 0.1}', None),
        (
            '{"event": "checkpoint.upload.failed", "level": "warning", "problem": "refused", '
            '"retry_in": 60.0}',
            "checkpoints are not copied away: refused; again in 1 min",
        ),
        (
            '{"event": "something.new", "level": "warning", "part": "x\\u001b[2J"}',
            r"something.new part=x\x1b[2J",
        ),
        ("Traceback (most recent call last):\n", "Traceback (most recent call last):"),
        ("\n", None),
    ],
)
def test_events_that_matter_are_shown_in_words(line: str, shown: str | None) -> None:
    said = console.shown(line, 0.0)
    assert (said.partition("  ")[2] if said else None) == shown
