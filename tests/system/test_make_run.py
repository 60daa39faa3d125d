"""What stands in the way of `make run` is said at once, in words, and nothing is left behind."""

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from deploy import console
from tests.claims import free_port

AT_ONCE = 30.0
"""Seconds, on a busy computer; on a quiet one it is less than one."""


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
    assert "a machine of this folder runs already" in done.stderr


def test_a_setting_that_cannot_be_used_is_said_before_anything_starts() -> None:
    done = make_run(SWARM_IDLE_TIMEOUT="soon", SWARM_IDLE_TIMOUT="1m")
    assert done.returncode == 1
    assert "SWARM_IDLE_TIMEOUT = 'soon' (environment): expected a duration" in done.stderr
    assert "did you mean SWARM_IDLE_TIMEOUT?" in done.stderr


@pytest.mark.root
def test_root_without_namespaces_hears_what_is_missing() -> None:
    """As in a container that may not do everything."""
    begun = time.monotonic()
    done = make_run("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    assert done.returncode == 1
    assert "as root it needs namespaces of its own, which this computer refuses" in done.stderr
    assert "--privileged" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert time.monotonic() - begun < AT_ONCE


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
