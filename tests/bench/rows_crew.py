"""How soon the state of a real coding agent is right after an event."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tests.bench.table import AGENT, Row, Samples
from tests.coding import Desk
from tests.codingtools import desk_with_tools, sit
from tests.messages import model
from tests.support import Box, Key, until

TOOLS = ("claude", "codex", "gemini", "opencode")
SECONDS = 2.0
READS = 1.5
ENDLESS = "run touch made; until test -e ended; do sleep 0.2; done"

IDLE = ("waiting", "the next prompt")
ASKS = {
    "claude": "Esc to cancel",
    "codex": "Would you like to run",
    "gemini": "Allow execution",
    "opencode": "Permission required",
}

Measured = Iterator[tuple[str, float]]
"""An event, and the seconds until the right state."""


def states(key: Key, rounds: int) -> list[Row]:
    """From a key press, or a signal, to the agent's event of the right state."""
    rows: list[Row] = []
    for name in TOOLS:
        found: dict[str, list[float]] = {}
        for _ in range(rounds):
            with _desk(key, name) as desk:
                for what, seconds in _measured(desk, name):
                    found.setdefault(what, []).append(seconds)
        rows += [
            Row(
                f"{name}: {what}",
                "s",
                (Samples(AGENT, tuple(values)),),
                limits=((f"≤ {SECONDS:g} s", SECONDS, False),),
            )
            for what, values in found.items()
        ]
    return rows


@contextmanager
def _desk(key: Key, name: str) -> Iterator[Desk]:
    """The tool in a window of a machine, ready for a prompt."""
    with tempfile.TemporaryDirectory() as folder, model() as told:
        Path(folder).chmod(0o755)
        box = Box(Path(folder) / "box", key)
        try:
            desk = desk_with_tools(box, told)
            _open(desk, name)
            yield desk
        finally:
            told.released.set()
            box.machine.kill()


def _open(desk: Desk, name: str) -> None:
    if name != "claude":
        sit(desk, name)
        return
    desk.sit_down("api").open("api", "api")
    desk.shows("api", "Claude Code")
    desk.becomes("api", "waiting")


def _measured(desk: Desk, name: str) -> Measured:
    _hold(desk)
    yield "Esc in a turn", _interrupt(desk, name)
    if name == "claude":
        desk.key("api", "C-u")  # it restores the unanswered prompt
    _ask(desk, name, ENDLESS)
    yield "a permission is granted", _press(desk, "Enter", "working")
    yield "Esc in a command", _interrupt(desk, name)
    desk.sh("touch api/ended")
    desk.type("api", ENDLESS)
    yield "a permission is asked for", _press(desk, "Enter", "waiting", "a permission")
    _read(desk, name)
    yield "a permission is denied", _press(desk, "Escape", *IDLE)
    if name == "claude":
        yield from _of_claude(desk)
    desk.type("api", "err400 please")
    yield "an error of the API", _press(desk, "Enter", "failed")
    working = _hold(desk)
    yield "kill -9", _after(desk, lambda: desk.sh(f"kill -9 {working}"), "ended")
    _open(desk, name)
    _hold(desk)
    yield "a closed terminal", _after(desk, lambda: desk.tmux("kill-session -t api"), "ended")


def _of_claude(desk: Desk) -> Measured:
    _hold(desk)
    yield "Ctrl-C in a turn", _interrupt(desk, "claude", "C-c")
    desk.key("api", "C-u")
    desk.type("api", "ask me")
    yield "a question is asked", _press(desk, "Enter", "waiting", "an answer")
    _read(desk, "claude")
    yield "a question is declined", _press(desk, "Escape", *IDLE)
    desk.tmux("kill-session -t api")
    desk.becomes("api", "ended")
    desk.sh("rm -f api/ended")
    _open(desk, "claude")
    _ask(desk, "claude", ENDLESS.replace("run", "bg", 1))
    yield "a background task begins", _press(desk, "Enter", "working")
    desk.becomes("api", "working", because="a background task runs")
    yield "a background task ends", _after(desk, lambda: desk.sh("touch api/ended"), *IDLE)
    desk.type("api", "sub: run touch it")
    yield "a subagent asks", _press(desk, "Enter", "waiting", "a permission")
    desk.tmux("kill-session -t api")
    desk.becomes("api", "ended")
    _open(desk, "claude")


def _hold(desk: Desk) -> int:
    """Start a turn that does not end; returns the tool's process."""
    desk.say("api", "hold on")
    working = desk.becomes("api", "working")
    return int(working["pid"])


def _ask(desk: Desk, name: str, prompt: str) -> None:
    """Bring up a dialog on the screen."""
    desk.say("api", prompt)
    desk.becomes("api", "waiting", need="a permission")
    _read(desk, name)


def _read(desk: Desk, name: str) -> None:
    """Wait as a person does: a dialog ignores keys in its first moments."""
    desk.shows("api", ASKS[name])
    time.sleep(READS)


def _interrupt(desk: Desk, name: str, key: str = "Escape") -> float:
    desk.await_interruptible("api", name)
    return _press(desk, key, *IDLE)


def _press(desk: Desk, key: str, state: str, need: str = "") -> float:
    return _after(desk, lambda: desk.key("api", key), state, need)


def _after(desk: Desk, do: Callable[[], object], state: str, need: str = "") -> float:
    """Seconds from `do` to the agent's own event of the state."""
    began = time.time()
    do()

    def seen() -> list[float]:
        events = desk.box.events("coding.state")
        wanted = [each for each in events if (each["state"], each["need"]) == (state, need)]
        times = [datetime.fromisoformat(each["timestamp"]).timestamp() for each in wanted]
        return [each for each in times if each >= began]

    return until(seen, f"{state} {need}; it is {desk.agent('api')}", 120)[0] - began
