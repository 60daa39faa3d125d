"""Messages to people: a real webhook on the loopback, Apprise in its process, and the agent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.claims import free_port
from tests.conftest import BoxMaker
from tests.support import Box, ready, until

pytestmark = pytest.mark.root


class Hook:
    """A webhook that records messages; with `refuses` it answers with an error."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.refuses = False
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not hook.refuses:
                    hook.taken.append(body)
                self.send_response(500 if hook.refuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.server.server_port}/secret-path"

    def says(self, text: str) -> str:
        """Wait for a message with this text; returns the whole message."""

        def look() -> list[str]:
            return [each["message"] for each in self.taken if text in each["message"]]

        return until(look, f"{text!r} in {self.taken}", 60)[0]


@contextmanager
def webhook() -> Iterator[Hook]:
    hook = Hook()
    try:
        yield hook
    finally:
        hook.server.shutdown()
        hook.server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    with webhook() as made:
        yield made


def notified(make_box: BoxMaker, *urls: str, **settings: str) -> Box:
    environ = {"SWARM_NOTIFY": "\n".join(urls), "SWARM_NOTIFY_WAIT": "1s", **settings}
    return ready(make_box().boot(environ))


def report(box: Box, word: str, name: str = "builder") -> None:
    """A coding agent without hooks reports its state, and keeps running."""
    script = f"swarm-agent agent {word} --name {name} && sleep 300 & sleep 0.2"
    done = box.ssh(f"export PATH=$HOME/.local/bin:$PATH; ({script}) >/dev/null 2>&1 </dev/null")
    assert done.returncode == 0, done.stderr


def test_a_test_message_and_what_is_wrong_with_the_others(make_box: BoxMaker, hook: Hook) -> None:
    dead = f"json://127.0.0.1:{free_port()}/dead-secret"
    box = notified(make_box, hook.url, "nonsense-secret", dead)
    done = box.agent("notify", "--test")
    lines = done.stdout.splitlines()
    assert lines[0] == "line 1 (json): sent"
    assert lines[1].endswith("Apprise does not know this kind of address")
    assert lines[2] == "line 3 (json): not delivered: no answer, or a refusal"
    assert done.returncode == 1
    assert hook.says("this is a test")
    assert "secret" not in box.said() + done.stdout
    assert "try again" in box.agent("notify", "--test").stderr


def test_the_process_that_sends_is_nobody_and_gone_afterwards(
    make_box: BoxMaker, hook: Hook
) -> None:
    box = notified(make_box, hook.url)
    assert box.agent("notify", "--test").returncode == 0
    from agent.init.proctree import descendants

    left = [each.command for each in descendants(box.machine.init)]
    assert left == []


def test_who_waits_is_told_and_no_folder_leaves(make_box: BoxMaker, hook: Hook) -> None:
    box = notified(make_box, hook.url)
    report(box, "waiting")
    assert hook.says("builder waits for an answer") == "builder waits for an answer"
    assert "/home" not in json.dumps(hook.taken)


def test_details_leave_where_the_setting_says_so(make_box: BoxMaker, hook: Hook) -> None:
    box = notified(make_box, hook.url, SWARM_NOTIFY_DETAILS="on")
    report(box, "waiting")
    assert hook.says("builder waits for an answer (/home/")


def test_what_is_not_taken_is_reported_once_and_sent_after_a_restart(
    make_box: BoxMaker, hook: Hook
) -> None:
    hook.refuses = True
    box = notified(make_box, hook.url)
    report(box, "waiting")
    failed = box.event("notify.failed")
    assert failed["line"] == 1
    until(lambda: "builder" in _page(box), f"the message on the volume: {box.said()}")
    assert box.stop() == 0
    hook.refuses = False
    notified_again = ready(box.boot({"SWARM_NOTIFY": hook.url}))
    assert hook.says("builder waits for an answer")
    assert len(notified_again.events("notify.failed")) == 0


def _page(box: Box) -> str:
    path = box.machine.volume / ".swarm" / "notify"
    return path.read_text() if path.exists() else ""


def test_nobody_is_told_of_what_is_switched_off(make_box: BoxMaker, hook: Hook) -> None:
    box = notified(make_box, hook.url, SWARM_NOTIFY_ABOUT="failed")
    report(box, "waiting")
    box.event("coding.state", state="waiting")
    assert box.agent("notify", "--test").returncode == 0
    assert hook.says("this is a test")
    assert len(hook.taken) == 1


def test_without_addresses_nothing_runs(make_box: BoxMaker) -> None:
    box = notified(make_box)
    done = box.agent("notify", "--test")
    assert done.returncode == 1
    assert "SWARM_NOTIFY has no address" in done.stderr
