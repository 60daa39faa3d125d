"""A machine on this computer and the computer itself do not affect each other."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import BoxMaker
from tests.support import Box, until

pytestmark = pytest.mark.root

# The test's own computer: otherwise it would add accounts to the real one.
COMPUTER = """
mount --make-rprivate / && mount --bind "$0/etc" /etc && mount --bind "$0/log" /var/log
echo up; exec cat
"""


class Computer:
    """Mounts with an /etc and a /var/log that real programs may change."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self.prefix = ["nsenter", "-t", str(process.pid), "-m"]
        self.etc = folder / "etc"
        self.log = folder / "log"

    def run(self, *command: str) -> None:
        subprocess.run([*self.prefix, *command], check=True)


@contextmanager
def computer(folder: Path) -> Iterator[Computer]:
    subprocess.run(["cp", "-a", "/etc", str(folder / "etc")], check=True)
    (folder / "log").mkdir()
    for name in ("wtmp", "lastlog", "btmp"):
        (folder / "log" / name).write_bytes(b"")
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", COMPUTER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield Computer(process, folder)
    finally:
        process.communicate()


def test_the_computers_accounts_change_and_the_machines_stay(
    make_box: BoxMaker, tmp_path: Path
) -> None:
    with computer(tmp_path) as host:
        box = make_box().boot(prefix=host.prefix)
        assert box.ssh("echo in").stdout == "in\n"
        host.run("useradd", "-l", "-M", "newcomer")
        host.run("groupadd", "newcomers")
        assert "newcomer" in (host.etc / "passwd").read_text()
        assert box.ssh("id -un").stdout == f"{box.user}\n"
        host.run("userdel", "newcomer")
        assert box.ssh("id -un").stdout == f"{box.user}\n"
        box.machine.kill()


def test_the_machine_writes_nothing_into_the_computers_etc_and_log(
    make_box: BoxMaker, tmp_path: Path
) -> None:
    with computer(tmp_path) as host:
        before = {path: path.read_bytes() for path in host.log.iterdir()}
        accounts = (host.etc / "passwd").read_bytes()
        box = make_box().boot(prefix=host.prefix)
        assert "in" in box.ssh("echo in", options=["-tt"]).stdout
        until(lambda: "pts/" in inside(box, "last", "-w"), "the login in the machine's own wtmp")
        inside(box, "useradd", "-l", "-M", "insider")
        assert "insider" in inside(box, "getent", "passwd", "insider")
        assert {path: path.read_bytes() for path in host.log.iterdir()} == before
        assert (host.etc / "passwd").read_bytes() == accounts
        box.machine.kill()


def inside(box: Box, *command: str) -> str:
    """The output of root's command inside the machine."""
    enter = ["nsenter", "-t", str(box.machine.init), "-m", "-p"]
    done = subprocess.run([*enter, *command], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.skipif(shutil.which("last") is None, reason="needs last(1)")
def test_a_machine_without_the_right_to_overlay_has_an_etc_of_its_own(
    make_box: BoxMaker, tmp_path: Path
) -> None:
    """Docker in Docker: an overlay cannot be mounted, and /etc is copied."""
    script = (Path(__file__).parents[2] / "deploy" / "enter.sh").read_text()
    assert "cp -a /etc/. /run/etc/" in script
    mount = tmp_path / "bin" / "mount"
    mount.parent.mkdir()
    mount.write_text('#!/bin/sh\n[ "$2" = overlay ] && exit 32\nexec /usr/bin/mount "$@"\n')
    mount.chmod(0o755)
    with computer(tmp_path) as host:
        box = make_box().boot(
            {"PATH": f"{mount.parent}:/usr/sbin:/usr/bin:/sbin:/bin"}, prefix=host.prefix
        )
        host.run("useradd", "-l", "-M", "newcomer")
        assert box.ssh("id -un").stdout == f"{box.user}\n"
        box.machine.kill()
