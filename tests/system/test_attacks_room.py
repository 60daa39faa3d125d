"""The login account cannot use up processes and terminals: its owner's next login works."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.conftest import BoxMaker
from tests.limited import Limited
from tests.support import Box, Screen, ready, until
from tests.system.test_faults import logs_in, notices

pytestmark = [pytest.mark.attack, pytest.mark.root]

BOMB = """
import os, time
print("begun", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.5)
"""
"""Forks for as long as the kernel allows, and takes every process slot that becomes free."""


@pytest.fixture
def bombed(make_box: BoxMaker, few_processes: Limited) -> Iterator[Box]:
    """A machine of at most 150 processes, in which a fork bomb of the login account runs."""
    few_processes.limit(150)
    box = make_box(uid=4141)  # the kernel counts by uid: do not count other machines' processes
    procs = few_processes.folder / "cgroup.procs"
    box.boot(before=f"echo $$ >{procs}")
    yield ready(box)
    with suppress(ProcessLookupError):
        box.machine.kill()


@pytest.mark.xdist_group("heavy")
def test_a_fork_bomb_of_the_account_leaves_room_for_the_owners_logins(
    bombed: Box, few_processes: Limited
) -> None:
    bomb = bombed.ssh_command(f"exec python3 -c '{BOMB}'")
    with subprocess.Popen(bomb, stdout=subprocess.PIPE) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"begun\n"
        try:
            until(lambda: few_processes.count() >= 100, "a bomb that has gone off")
            logins = [bombed.ssh("echo in", timeout=60).stdout for _ in range(5)]
            assert logins == ["in\n"] * 5
            assert bombed.agent("status").returncode == 0
            # And that login can stop it.
            bombed.ssh("kill -9 -1", timeout=60)
            until(lambda: few_processes.count() < 50, "the end of the bomb")
        finally:
            session.kill()
    assert logs_in(bombed)


@pytest.mark.xdist_group("heavy")
def test_processes_of_the_same_uid_elsewhere_keep_nobody_out(
    make_box: BoxMaker, few_processes: Limited
) -> None:
    """The kernel counts them together; the machine only sees its own."""
    elsewhere = [subprocess.Popen(["sleep", "300"], user=1000) for _ in range(120)]
    try:
        few_processes.limit(100)
        procs = few_processes.folder / "cgroup.procs"
        box = ready(make_box().boot(before=f"echo $$ >{procs}"))
        assert logs_in(box)
        assert "outside of this container" in notices(box)["processes"]
    finally:
        for each in elsewhere:
            each.kill()
            each.wait()
        box.machine.kill()


EATER = """
import os, signal, sys
taken = []
try:
    while True:
        taken.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
except OSError:
    print("all taken", flush=True)
signal.pause()
"""


def test_a_session_that_takes_all_terminals_leaves_some_for_a_newcomer(make_box: BoxMaker) -> None:
    box = ready(make_box().boot(before="mount -o remount,max=60 /dev/pts"))
    with subprocess.Popen(
        box.ssh_command(f"exec python3 -c '{EATER}'"), stdout=subprocess.PIPE
    ) as eater:
        assert eater.stdout is not None
        assert eater.stdout.readline() == b"all taken\n"
        master, slave = os.openpty()
        command = box.ssh_command("tty; sleep 0.5", options=["-tt"])
        with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave) as login:
            os.close(slave)
            Screen(master).expect("/dev/pts/")
            login.wait(60)
        os.close(master)
        assert eater.wait(60) != 0
    assert "python3" in notices(box)["terminals"]
