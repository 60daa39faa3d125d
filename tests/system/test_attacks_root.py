"""Programs of the login account cannot become root or see what only root may see."""

import os
import pty
from pathlib import Path

import pytest

from tests.conftest import BoxMaker
from tests.support import Box, Screen, until

pytestmark = pytest.mark.attack

GRAB = """#!/usr/bin/python3
import fcntl, os, signal, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
try:
    tty = os.open("/dev/tty", os.O_RDWR)
    said = ["opened"]
    for grab in (
        lambda: [fcntl.ioctl(tty, termios.TIOCSTI, c.encode()) for c in "echo typed\\n"],
        lambda: os.tcsetpgrp(tty, os.getpgrp()),
    ):
        try:
            grab()
            said.append("grabbed")
        except OSError as error:
            said.append(error.strerror)
except OSError as error:
    said = [error.strerror]
os.chdir(os.environ["HOME"])
with open("grab.new", "w") as file:
    print(*said, file=file)
os.rename("grab.new", "grab")
"""


def in_home(box: Box, path: str, content: str) -> Path:
    """Create a program of the login account; the machine must have been prepared."""
    account = box.folder / "home" / box.user
    file = account / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    file.chmod(0o755)
    for each in (file, *file.parents):
        if each == account:
            break
        os.chown(each, 1000, 1000)
    return file


@pytest.mark.root
def test_a_check_can_neither_type_into_roots_terminal_nor_take_it_over(make_box: BoxMaker) -> None:
    box = make_box()
    box.machine._prepare()
    in_home(box, ".config/swarm/checks.d/grab", GRAB)
    master, slave = pty.openpty()
    box.start(
        {"SWARM_IDLE_TIMEOUT": "30s"},
        *(
            "sh",
            "-c",
            "trap '' INT; echo at the prompt; while read -r line; do echo got $line; done",
        ),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        prefix=["setsid", "--ctty", "--wait"],
    )
    os.close(slave)
    screen = Screen(master)
    screen.expect("at the prompt")
    found = box.folder / "home" / box.user / "grab"
    until(found.exists, f"the check; {screen.seen}")
    assert found.read_text() == "No such device or address\n"
    screen.type("hello\n")
    screen.expect("got hello")
    os.close(master)


@pytest.mark.root
def test_a_link_to_a_folder_of_roots_shows_no_name_that_is_in_it(make_box: BoxMaker) -> None:
    """Folders below the home are listed with the rights of its owner."""
    box = make_box()
    box.machine._prepare()
    secret = box.machine.volume / "secret"
    secret.mkdir(parents=True)
    secret.chmod(0o700)
    program = secret / "known-to-root"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    folder = in_home(box, ".config/swarm/x", "").parent
    os.symlink("/mnt/secret", folder / "checks.d")
    box.boot({"SWARM_IDLE_TIMEOUT": "30s"})
    assert "cannot be" in box.event("idle.signal.failed", signal="check")["problem"]
    why = until(lambda: box.agent("why").stdout, "the control socket")
    assert "/.config/swarm/checks.d" in why
    assert "known-to-root" not in why + box.said()
