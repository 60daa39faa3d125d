"""The first hour of a newcomer, in a terminal of 80 columns and 24 lines: from a clone to a login.

The clone is below a folder that nobody else may enter. SWARM_WALK_SECONDS lists seconds after which
`make run` is interrupted, in one run each, before the run that must succeed.
"""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.claims import free_port
from tests.support import until

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]

SOURCE = Path(__file__).resolve().parents[2]
SETS_UP = 600.0
"""Seconds for a set-up with every package, on a busy computer with a slow network."""

INTERRUPTED = [float(each) for each in (os.environ.get("SWARM_WALK_SECONDS") or "3").split()]
UID = 4242
LINES = 24

_AS_USER = """
set -e
mount --make-rprivate /
mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount --bind /dev/pts/ptmx /dev/ptmx
for file in passwd group shadow; do mount --bind "$1/$file" "/etc/$file"; done
shift
umask 002  # as Debian gives it to whoever has a group of their own
exec setpriv --reuid=4242 --regid=4242 --clear-groups "$@"
"""


class Terminal:
    """Its own tmux server with windows of 80 columns and 24 lines."""

    def __init__(self, folder: Path, home: Path, prefix: list[str]) -> None:
        self._socket = str(folder / "tmux")
        environ = {
            "HOME": str(home),
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "TERM": "screen",
            "PS1": "ready> ",
            "TMPDIR": str(home / "tmp"),
            "LC_ALL": "C.UTF-8",
            **{name: text for name, text in os.environ.items() if name.startswith("PIP_")},
        }
        settings = [f"{name}={text}" for name, text in environ.items()]
        tmux = ["tmux", "-S", self._socket, "new-session", "-d", "-x80", f"-y{LINES}"]
        shell = ["bash", "--norc", "--noprofile"]
        subprocess.run(
            [*prefix, "env", "-i", *settings, *tmux, "-s", "walk", "-c", str(home), *shell],
            check=True,
        )
        self._shell = shell

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *words], capture_output=True, text=True, check=True
        )
        return done.stdout

    def window(self, folder: Path) -> None:
        """Open another window; programs in the first keep running."""
        self._tmux("new-window", "-t", "walk", "-c", str(folder), *self._shell)

    def type(self, text: str, window: int = 0) -> None:
        self._tmux("send-keys", "-t", f"walk:{window}", "-l", text)
        self._tmux("send-keys", "-t", f"walk:{window}", "Enter")

    def interrupt(self, window: int = 0) -> None:
        self._tmux("send-keys", "-t", f"walk:{window}", "C-c")

    def screen(self, window: int = 0) -> str:
        """The text on the screen now."""
        return self._tmux("capture-pane", "-p", "-t", f"walk:{window}")

    def expect(self, text: str, window: int = 0, timeout: float = 60.0) -> str:
        """Wait until a text is on the screen; returns the screen."""
        try:
            until(lambda: text in self.screen(window), f"{text!r}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen:\n{self.screen(window)}") from None
        return self.screen(window)

    def runs(self, command: str, window: int, timeout: float = 60.0) -> str:
        """Type a command and wait for its end; returns the screen."""
        mark = f"done{time.monotonic_ns()}"
        self.type(f'clear; {command}; echo "{mark[:4]}""{mark[4:]} $?"', window)
        return self.expect(mark, window, timeout)

    def is_at_its_prompt(self, window: int = 0) -> bool:
        """Whether no program runs in the window."""
        lines = self.screen(window).rstrip("\n").splitlines() or [""]
        return lines[-1].strip() == "ready>"

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], check=False)


@pytest.fixture(params=["root", "user"])
def who(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def home(who: str) -> Iterator[Path]:
    """A home that nobody else may enter, with a clone in it; its path is short, for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="walk", dir="/tmp"))
    if who == "user":
        folder.chmod(0o755)
    home = folder / "home"
    shutil.copytree("/etc/skel", home)
    (home / "tmp").mkdir()
    home.chmod(0o700)
    clone = ["git", "clone", "-q", str(SOURCE), str(home / "swarm")]
    subprocess.run(clone, check=True, umask=0o022 if who == "root" else 0o002)
    if who == "user":
        line = f"walker:x:{UID}:{UID}::{home}:/bin/bash\n"
        for name, added in (
            ("passwd", line),
            ("group", f"walker:x:{UID}:\n"),
            ("shadow", "walker:*:19000:0:99999:7:::\n"),
        ):
            (folder / name).write_text(Path("/etc", name).read_text() + added)
        subprocess.run(["chown", "-R", f"{UID}:{UID}", str(home)], check=True)
    yield home
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def terminal(home: Path, who: str) -> Iterator[Terminal]:
    prefix = ["setsid", "-w"]
    if who == "user":
        prefix = ["unshare", "--mount", "sh", "-c", _AS_USER, "sh", str(home.parent)]
    made = Terminal(home if who == "user" else home.parent, home, prefix)
    yield made
    if not made.is_at_its_prompt():
        made.interrupt()
        until(made.is_at_its_prompt, "the end of what ran there")
    made.close()


def test_from_a_clone_to_a_login(terminal: Terminal, home: Path, who: str) -> None:
    port, http_port, machine_port = free_port(), free_port(), free_port()
    ports = f"PORT={port} HTTP_PORT={http_port} MACHINE_PORT={machine_port}"
    terminal.runs(f"cd swarm && export {ports}", 0)
    for seconds in INTERRUPTED:
        terminal.type("clear; make run")
        time.sleep(seconds)
        terminal.interrupt()
        until(terminal.is_at_its_prompt, f"the prompt; {terminal.screen()}", 90)
    terminal.type("clear; make run")
    time.sleep(1)
    until(
        lambda: "end            Ctrl-C" in terminal.screen() or terminal.is_at_its_prompt(),
        "the closing block",
        SETS_UP,
    )
    screen = terminal.screen()
    # The whole block is visible: nothing has scrolled away.
    for word in ("The machine is up", "log in", "root shell" if who == "root" else "its root"):
        assert word in screen, screen
    found = re.search(r"log in +(ssh .*)", screen)
    assert found is not None

    terminal.window(home / "swarm")
    terminal.type(found[1].strip(), 1)
    terminal.expect(":~$", 1)
    status = terminal.runs("swarm-agent status", 1)
    assert "awake since" in status
    assert "notice" not in status and "problem" not in status, status
    checked = terminal.runs("swarm-agent check", 1)
    assert "ok    key: make-run" in checked
    assert "FAIL" not in checked
    assert "awake for 1 h 00 min" in terminal.runs("swarm-agent awake --for 1h", 1)
    assert "held awake by by-hand for" in " ".join(terminal.runs("swarm-agent why", 1).split())
    if who == "root":
        terminal.runs("rm -f ~/.gitconfig; echo mine >~/.gitconfig", 1)
        assert "only root may do this: make shell" in terminal.runs("swarm-agent sleep", 1)
        assert "1 file, " in terminal.runs("swarm-agent checkpoint", 1)
    else:
        assert "nobody is banned" in terminal.runs("swarm-agent bans", 1)
    terminal.type("exit", 1)
    terminal.expect("logged out", 0)
    if who == "root":
        assert "nobody is banned" in terminal.runs("make -s shell COMMAND='swarm-agent bans'", 1)
        assert "root" in terminal.runs("make -s shell COMMAND='id -un'", 1)

    # A second run says at once, in one line, why it cannot start.
    said = terminal.runs(f"{ports} make -s run", 1)
    assert "a machine runs in this folder already" in said

    terminal.interrupt(0)
    terminal.expect("stopped after", 0)
    if who == "root":
        kept = home / "swarm/.run/machine/volume/.home/.gitconfig"
        assert kept.read_text() == "mine\n"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
