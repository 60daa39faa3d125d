"""Real coding agents in a machine, each in a tmux window that only the test uses."""

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.messages import Model
from tests.support import Box, until

TOOLS = Path(__file__).parent / "tools" / "node_modules"
CLAUDE = TOOLS / "@anthropic-ai" / "claude-code-linux-x64" / "claude"
HOOKS = Path(__file__).parents[1] / "container" / "claude" / "settings.json"
KEY = "sk-ant-api03-stand-in-0123456789abcdef"

QUICK = 60.0
"""Seconds within which a state must be right on a busy computer. (2 on a quiet one.)"""

PLAIN = {"SWARM_CHECKPOINTS": "off"}
"""Settings of a machine without a checkpoint before each turn, which is not the tests' subject and
takes restic a second of CPU."""

SOON = 2.0 if os.getloadavg()[0] < (os.cpu_count() or 1) else 20.0
"""Seconds from a person's action to its event: 2 if this computer is idle."""


INTERRUPTS = {
    "claude": ("esc to interrupt",),
    "codex": ("esc to interrupt",),
    "gemini": ("esc to cancel",),
    "opencode": ("esc interrupt", "esc again to interrupt"),
}
"""What the window of a tool shows when it hears an Escape that interrupts it, for each Escape."""


class Desk:
    """A login in the machine with windows in which coding agents run."""

    def __init__(self, box: Box, model: Model) -> None:
        self.box = box
        self.model = model
        self.home = f"/home/{box.user}"

    def sit_down(self, *folders: str) -> "Desk":
        """Prepare the home, so that the tool asks no first-run questions in these folders."""
        trusted = {f"{self.home}/{each}": {"hasTrustDialogAccepted": True} for each in folders}
        first_run_is_over = {
            "hasCompletedOnboarding": True,
            "customApiKeyResponses": {"approved": [KEY[-20:]]},
            "projects": trusted,
        }
        self.sh(f"mkdir -p .claude tmp {' '.join(folders)}")
        self.put(".claude.json", json.dumps(first_run_is_over))
        self.put(".claude/settings.json", HOOKS.read_text())
        return self

    def put(self, path: str, text: str) -> None:
        """A file below the home."""
        self.sh(f"cat >{shlex.quote(path)}", input=text)

    def sh(self, script: str, **how: Any) -> str:
        """Run a script as the login account."""
        done = self.box.ssh(script, **how)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a tool in a window."""
        return {
            "PATH": f"{self.home}/.local/bin:/usr/local/bin:/usr/bin:/bin",
            "ANTHROPIC_BASE_URL": self.model.url,
            "ANTHROPIC_API_KEY": KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "LANG": "C.UTF-8",
            # /tmp is the host's, and may have a socket of another user with our name.
            "TMPDIR": f"{self.home}/tmp",
            "CLAUDE_CODE_TMPDIR": f"{self.home}/tmp",
            # Its sandbox needs privileges that a test's namespace does not have.
            "IS_SANDBOX": "1",
        }

    def open(self, name: str, folder: str, command: str = "", more: Mapping[str, str] = {}) -> None:
        """Start a tool in a window of its own; Claude Code that asks for permissions by default."""
        command = command or f"{CLAUDE} --permission-mode default"
        environ = " ".join(
            f"{key}={shlex.quote(value)}" for key, value in {**self.environ, **more}.items()
        )
        self.tmux(
            f"new-session -d -s {name} -x 120 -y 40 -c {self.home}/{folder} "
            f"{shlex.quote(f'exec env {environ} {command}')}"
        )

    def tmux(self, words: str) -> str:
        """A command of the account's tmux server, which is this machine's alone."""
        return self.sh(f"TMUX_TMPDIR={self.home} tmux {words}")

    def screen(self, name: str) -> str:
        """The text of a window."""
        return self.tmux(f"capture-pane -p -t {name}")

    def shows(self, name: str, text: str) -> None:
        """Wait until a window shows a text."""
        try:
            until(lambda: text in self.screen(name), f"{text!r} in {name}", 60)
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows\n{self.screen(name)}") from None

    def say(self, name: str, text: str) -> None:
        """Type a prompt; typed text and Enter must not arrive as one paste."""
        self.type(name, text)
        self.key(name, "Enter")

    def type(self, name: str, text: str) -> None:
        """Type a prompt without its Enter."""
        self.tmux(f"send-keys -t {name} -l {shlex.quote(text)}")
        until(lambda: text[:40] in self.screen(name), f"{text!r} at the prompt of {name}")

    def key(self, name: str, key: str) -> None:
        """Press a key."""
        self.tmux(f"send-keys -t {name} {key}")

    def answer(self, name: str, key: str) -> None:
        """Press a key in a dialog, once it is shown: its hook fires before that."""
        self.shows(name, "Esc to cancel")
        self.key(name, key)

    def await_interruptible(self, name: str, tool: str) -> None:
        """Wait until the next Escape interrupts the tool, pressing those that it wants before.

        An Escape that comes earlier is lost, and two in one read are another key.
        """
        *first, last = INTERRUPTS[tool]
        for text in first:
            self.shows(name, text)
            self.key(name, "Escape")
        self.shows(name, last)

    def interrupt(self, name: str, tool: str, key: str = "Escape") -> None:
        """Interrupt the turn of the tool in a window."""
        self.await_interruptible(name, tool)
        self.key(name, key)

    def agents(self) -> list[dict[str, Any]]:
        """The report of `swarm-agent agents --json`, from the control socket."""
        return self.box.ask("/v1/agents") or []

    def agent(self, folder: str) -> dict[str, Any]:
        """The latest coding agent of a folder; empty before it is known."""
        found = [each for each in self.agents() if each["folder"] == f"{self.home}/{folder}"]
        return found[0] if found else {}

    def becomes(self, folder: str, state: str, timeout: float = QUICK, **more: object) -> Any:
        """Wait until the coding agent of a folder is in a state."""
        wanted = {"state": state, **more}

        def look() -> dict[str, Any]:
            seen = self.agent(folder)
            return seen if seen and all(seen[key] == each for key, each in wanted.items()) else {}

        try:
            return until(look, f"{wanted}", timeout)
        except AssertionError as error:
            log = "\n".join(map(str, self.box.events("coding.state")))
            raise AssertionError(f"{error}: it is {self.agent(folder)}\n{log}") from None


def process_of(box: Box, pid: int) -> int:
    """The host's id of a process that the machine calls `pid`."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = Path(f"/proc/{entry}/status").read_text()
            except OSError:
                continue
            line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
            if line.split()[1:] == [entry, str(pid)] and _below(int(entry), box.machine.init):
                return int(entry)
    raise LookupError(pid)


def _below(pid: int, top: int) -> bool:
    from agent.init.proctree import read_process

    while pid > 1:
        if pid == top:
            return True
        process = read_process(pid)
        pid = 0 if process is None else process.parent
    return False
