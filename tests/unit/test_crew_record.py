"""Records of conversations: lines as Codex 0.169 and Gemini CLI 0.61 write them."""

import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from agent.crew import record
from agent.crew.record import Followed, follow
from agent.crew.states import Ending

WHEN = "2026-11-30T21:13:07.885Z"
STAMP = datetime.fromisoformat(WHEN).timestamp()


def line(kind: str, **more: object) -> str:
    return json.dumps({"timestamp": WHEN, "type": kind, **more}) + "\n"


def codex(kind: str, **more: object) -> str:
    return line("event_msg", ordinal=42, payload={"type": kind, "turn_id": "t", **more})


REFUSED = {"message": "as told", "codex_error_info": "other"}
LINES = {
    codex("task_complete", last_agent_message="All done."): Ending(STAMP),
    codex("task_complete", last_agent_message=None, error=None): Ending(STAMP),
    codex("task_complete", last_agent_message=None, error=REFUSED): Ending(STAMP, failed=True),
    codex("turn_aborted", reason="interrupted"): Ending(STAMP),
    codex("task_started"): None,
    codex("item_completed", item={"type": "error", "text": "turn_aborted"}): None,
    line("response_item", payload={"type": "turn_aborted"}): None,
    line("info", id="i", content="Request cancelled."): Ending(STAMP),
    line("info", id="i", content="This request failed. Press F12"): None,
    line("error", id="i", content='[API Error: {"error"}]'): Ending(STAMP, failed=True),
    line("user", id="i", content=[{"text": "Request cancelled."}]): None,
    line("gemini", id="i", content="", toolCalls=[{"status": "cancelled"}]): None,
    '{"$set":{"lastUpdated":"2026-11-30T21:13:08.000Z"}}\n': None,
    "\n": None,
    '{"timestamp": 7, "type": "error"}\n': None,
    "[]\n": None,
    '{"timestamp": "0001-01-01T00:00:00", "type": "error"}\n': None,
    line("error", content=json.loads("[" * 900 + "]" * 900)): Ending(STAMP, failed=True),
    line("error", content="@").replace('"@"', "[" * 30_000 + "]" * 30_000): None,
}


@pytest.mark.parametrize(("text", "ending"), LINES.items())
def test_what_ends_a_turn(tmp_path: Path, text: str, ending: Ending | None) -> None:
    path = tmp_path / "record"
    path.write_text(text)
    assert follow(Followed(str(path)), os.geteuid()).ending == ending


def test_only_what_is_new_and_whole_is_read(tmp_path: Path) -> None:
    path = tmp_path / "record"
    first, second = codex("turn_aborted"), codex("task_complete", error=REFUSED)
    path.write_text(first + second[:40])
    seen = follow(Followed(str(path)), os.geteuid())
    assert (seen.read, seen.ending) == (len(first), Ending(STAMP))
    path.write_text("x" * len(first) + second)
    seen = follow(seen, os.geteuid())
    assert (seen.read, seen.ending) == (len(first + second), Ending(STAMP, failed=True))
    path.write_text(first)  # it was created again
    assert follow(seen, os.geteuid()).ending == Ending(STAMP)


def test_a_line_without_an_end_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "MOST_READ", 1000)
    path = tmp_path / "record"
    path.write_text("x" * 2500 + "\n" + codex("turn_aborted"))
    seen = Followed(str(path))
    for _ in range(3):
        seen = follow(seen, os.geteuid())
    assert seen.ending == Ending(STAMP)


def test_nothing_but_a_file_of_the_account_is_read(tmp_path: Path) -> None:
    path, link, pipe = tmp_path / "record", tmp_path / "link", tmp_path / "pipe"
    path.write_text(codex("turn_aborted"))
    link.symlink_to(path)
    os.mkfifo(pipe)
    for each in (link, pipe, tmp_path, tmp_path / "none"):
        assert follow(Followed(str(each)), os.geteuid()).ending is None
    assert follow(Followed(str(path)), os.geteuid() + 1).ending is None
