"""`swarm-agent hook TOOL`: hands the running agent what a coding tool's hook says.

Every tool call waits for it, so it imports next to nothing (`socket` and `signal` would cost more
than all the rest: their C modules serve), prints nothing, ends within `LIMIT` seconds and always
with status 0. Texts of prompts, answers and tools stay here: only the fields of `pick` leave, as
one datagram.
"""

import _signal  # type: ignore[import-not-found]  # typeshed knows only `signal`
import _socket
import os
import sys
import time
from collections.abc import Mapping, Sequence

from agent import places

LIMIT = 1.0
"""Seconds after which it ends, whatever it waits for."""

SOCKET = "hooks.sock"
OWN_WORD = "own"
"""The tool of a report made with `swarm-agent agent`."""

MOST_READ = 32 << 20
MOST_SENT = 8192
"""Bytes of one datagram; the agent reads no longer ones."""

LONGEST = 500
"""Letters of one field."""

_SHELLS = ("sh", "dash", "bash", "zsh", "env", "timeout")
_HIGHEST = 10
SENT_BY_TOOL = {
    "event": "hook_event_name",
    "session": "session_id",
    "folder": "cwd",
    "tool_name": "tool_name",
    "call": "tool_use_id",
    "sub": "agent_id",
    "about": "notification_type",
    "source": "source",
    "reason": "reason",
    "error": "error",
    "status": "status",
    "record": "transcript_path",
}
_NOTIFY = {"event": "type", "session": "thread-id", "folder": "cwd"}
"""The fields of Codex's `notify`, which comes as the last argument."""


def main(words: Sequence[str]) -> None:
    """Send one report; ends the process."""
    _signal.signal(_signal.SIGALRM, lambda *_: os._exit(0))
    _signal.setitimer(_signal.ITIMER_REAL, LIMIT)
    try:
        send(_report(words[0], words[1:]), _tool_above(), os.environ)
    except Exception:
        # The tool must not fail for us, and has nobody to whom a word of ours would be of use: who
        # looks for what is missing finds it with `swarm-agent agents`.
        os._exit(0)
    os._exit(0)


def pick(payload: Mapping[str, object], names: Mapping[str, str]) -> dict[str, object]:
    """The fields that say what happened, and none that says what was talked about."""
    found: dict[str, object] = {}
    for ours, theirs in names.items():
        value = payload.get(theirs)
        if isinstance(value, str) and value:
            found[ours] = value[:LONGEST]
    details = payload.get("details")
    if isinstance(details, dict) and isinstance(details.get("type"), str):
        found["detail"] = details["type"][:LONGEST]
    tasks = payload.get("background_tasks")
    if isinstance(tasks, list):
        found["background"] = sum(
            isinstance(task, dict) and task.get("status") == "running" for task in tasks
        )
    prompt = payload.get("prompt")
    # A finished background task comes as a prompt that nobody typed.
    found["typed"] = not (isinstance(prompt, str) and prompt.startswith("<task-notification>"))
    return found


def send(report: Mapping[str, object], pid: int, environ: Mapping[str, str]) -> None:
    """Hand a report of the process `pid` to the agent. Raises `OSError` where none takes it."""
    from json import dumps

    where = {
        "at": time.time(),
        "pid": pid,
        "pane": environ.get("TMUX_PANE", ""),
        "tmux": environ.get("TMUX", ""),
    }
    data = dumps({**report, **where}).encode()
    if len(data) > MOST_SENT:
        raise OSError("the report is too long")
    sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    sender.settimeout(LIMIT)
    sender.connect(_path(environ))
    sender.send(data)


def _report(tool: str, words: Sequence[str]) -> dict[str, object]:
    from json import loads

    names = _NOTIFY if words else SENT_BY_TOOL
    payload = loads(words[-1] if words else _stdin())
    return {"tool": tool[:LONGEST], **pick(payload, names)}


def _stdin() -> bytes:
    parts, left = [], MOST_READ
    while left > 0 and (part := os.read(0, 1 << 20)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _path(environ: Mapping[str, str]) -> str:
    """The agent's socket: the same places in the same order as the other commands look at."""
    unprivileged = places.RUN_DIR_UNPRIVILEGED.replace("~", environ.get("HOME", ""), 1)
    for folder in (environ.get("SWARM_RUN_DIR", ""), places.RUN_DIR, unprivileged):
        path = f"{folder}/{SOCKET}"
        if folder and os.path.exists(path):
            return path
    # The run folder may be named in the settings file, which few have.
    from agent.cli.client import run_dir

    return f"{run_dir()}/{SOCKET}"


def _tool_above() -> int:
    """The tool whose hook we are: the nearest process above us that is no shell for one command."""
    pid = os.getppid()
    for _ in range(_HIGHEST):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            argv = file.read(4096).split(b"\0")
        name = os.path.basename(argv[0].decode("utf-8", "replace"))
        if name not in _SHELLS or b"-c" not in argv[1:4]:
            break
        with open(f"/proc/{pid}/stat", "rb") as file:
            pid = int(file.read().rpartition(b")")[2].split()[1])
    return pid


if __name__ == "__main__":
    main(sys.argv[1:])
