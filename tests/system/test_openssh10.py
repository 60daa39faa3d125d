"""The same gate in front of OpenSSH 10, which consists of sshd, sshd-session and sshd-auth.

A real one: Debian trixie's, in a root file system that debootstrap creates once.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.claims import alone
from tests.conftest import BoxMaker
from tests.support import Box, make_key
from tests.system.test_gate import ATTACKER, answer, boot, connect, garbage, ssh_as

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

ROOT_FS = Path(__file__).resolve().parents[2] / ".cache" / "trixie"


@pytest.fixture(scope="module")
def trixie() -> Path:
    with alone(ROOT_FS.with_name("trixie.lock")):
        if not (ROOT_FS / "usr/sbin/sshd").exists():
            shutil.rmtree(ROOT_FS, ignore_errors=True)
            unfinished = ROOT_FS.with_name("trixie.new")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            command = ["debootstrap", "--variant=minbase", "--include=openssh-server", "trixie"]
            subprocess.run([*command, str(unfinished)], check=True, stdout=subprocess.DEVNULL)
            os.rename(unfinished, ROOT_FS)
    return ROOT_FS


@pytest.fixture
def gate(make_box: BoxMaker, trixie: Path) -> Box:
    """A machine whose sshd is trixie's, with the machine's own folders in its root."""
    folders = " ".join(("dev", "proc", "run", "home", "mnt"))
    before = (
        f"for f in {folders}; do mount --rbind /$f {trixie}/$f; done; "
        f"for f in passwd shadow group; do mount --bind /etc/$f {trixie}/etc/$f; done; "
        f"printf '#!/bin/sh\\nexec chroot {trixie} /usr/sbin/sshd \"$@\"\\n' >/run/sshd-of-trixie; "
        "chmod 755 /run/sshd-of-trixie"
    )
    box = make_box()
    return boot(box, {"SWARM_SSHD": "/run/sshd-of-trixie"}, before=before)


def test_it_is_openssh_10(trixie: Path) -> None:
    command = ["chroot", str(trixie), "/usr/sbin/sshd", "-V"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert said.startswith("OpenSSH_10.")


def test_login_is_seen_with_user_and_key(gate: Box) -> None:
    assert ssh_as(gate, ATTACKER) == 0
    opened = gate.event("ssh.session.opened")
    assert (opened["user"], opened["key"], opened["client"]) == ("dev", "ann", ATTACKER)
    assert gate.event("ssh.session.closed")["fingerprint"] == opened["fingerprint"]


def test_failures_are_seen_and_banned(gate: Box, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")
    for _ in range(5):
        assert ssh_as(gate, ATTACKER, stranger) == 255
    assert gate.event("ssh.connection.closed")["verdict"] == "failed"
    assert gate.event("ban.started")["network"] == ATTACKER


@pytest.mark.parametrize("user", ["nosuchuser", "root"])
def test_users_that_may_not_are_seen(gate: Box, user: str) -> None:
    assert ssh_as(gate, ATTACKER, user=user) == 255
    assert gate.event("ssh.connection.closed")["verdict"] == "invalid user"


def test_garbage_is_a_probe_and_a_bare_connect_is_nothing(gate: Box) -> None:
    for _ in range(12):
        with connect(gate, "198.51.100.1") as connection:
            assert answer(connection) == b"SSH-"
    garbage(gate)
    closed = gate.event("ssh.connection.closed")
    assert (closed["verdict"], closed["client"]) == ("probe", ATTACKER)
    assert len(gate.events("ssh.connection.closed")) == 1
    assert not gate.events("ban.started")
