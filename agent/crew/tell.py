"""`swarm-agent hook TOOL`: forwards the report of a coding tool's hook to the running agent.

Every tool call waits for it, so it imports next to nothing (`socket` and `signal` would cost more
than all the rest, so it uses their C modules), prints nothing, and always exits with status 0
within `LIMIT` seconds. Texts of prompts, answers and tools are not sent: only the fields of `pick`
are, in one datagram.
"""

import _signal  # type: ignore[import-not-found]  # typeshed knows only `signal`
import _socket
import os
import sys
import time
from collections.abc import Mapping, Sequence

from agent import places

LIMIT = 1.0
"""Seconds after which it exits, whatever it waits for."""

SOCKET = "hooks.sock"
OWN_WORD = "own"
"""The tool of a report made with `swarm-agent agent`."""

MOST_READ = 32 << 20
MOST_SENT = 8192
"""The largest datagram that the agent reads, in bytes."""

LONGEST = 500
"""The most characters of one field."""

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
"""The fields of the JSON that Codex's `notify` passes as the last argument."""


def main(words: Sequence[str]) -> None:
    """Send one report and exit."""
    _signal.signal(_signal.SIGALRM, lambda *_: os._exit(0))
    _signal.setitimer(_signal.ITIMER_REAL, LIMIT)
    try:
        send(_report(words[0], words[1:]), _tool_above(), os.environ)
    except Exception:
        # We must not make the tool fail, and nobody reads our output: a missing report shows in
        # `swarm-agent agents`.
        os._exit(0)
    os._exit(0)


def pick(payload: Mapping[str, object], names: Mapping[str, str]) -> dict[str, object]:
    """The fields that say what happened, without any text of the conversation."""
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
    # A finished background task arrives as a prompt that nobody typed.
    found["typed"] = not (isinstance(prompt, str) and prompt.startswith("<task-notification>"))
    return found


def send(report: Mapping[str, object], pid: int, environ: Mapping[str, str]) -> None:
    """Send a report of the process `pid` to the agent. Raises `OSError` if no agent accepts it."""
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
    """The path of the agent's socket, found in the same order as by the other commands."""
    unprivileged = places.RUN_DIR_UNPRIVILEGED.replace("~", environ.get("HOME", ""), 1)
    for folder in (environ.get("SWARM_RUN_DIR", ""), places.RUN_DIR, unprivileged):
        path = f"{folder}/{SOCKET}"
        if folder and os.path.exists(path):
            return path
    # The settings file, which few machines have, may name the run folder.
    from agent.cli.client import run_dir

    return f"{run_dir()}/{SOCKET}"


def _tool_above() -> int:
    """The tool whose hook we are: the nearest ancestor that is not a shell for one command."""
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
