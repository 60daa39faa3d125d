"""Payloads that the tools really send, and how they are interpreted."""

import asyncio
import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.crew.hooks import ReportError, read
from agent.crew.inbox import BATCH, PACE, Inbox
from agent.crew.states import Kind, Need, Report
from agent.crew.tell import MOST_SENT, SENT_BY_TOOL, pick

SECRET = "the-secret-of-a-prompt"


def sent(tool: str, payload: dict[str, Any]) -> Report | None:
    """The agent's interpretation of a payload."""
    picked = pick(payload, SENT_BY_TOOL)
    assert SECRET not in json.dumps(picked)
    data = json.dumps({"tool": tool, **picked, "pid": 7, "pane": "%3", "tmux": "/t/s,1,0"}).encode()
    assert len(data) <= MOST_SENT
    teller, report = read(data)
    assert (teller.tool, teller.session, teller.pid) == (tool, "s-1", 7)
    assert (teller.pane, teller.tmux) == ("%3", "/t/s")
    return report


def claude(event: str, **more: Any) -> Report | None:
    return sent("claude", {"hook_event_name": event, "session_id": "s-1", "cwd": "/w", **more})


def test_claude_code() -> None:
    assert claude("SessionStart", source="startup") == Report(Kind.STARTED)
    assert claude("UserPromptSubmit", prompt=SECRET) == Report(Kind.TURN)
    call = {"tool_name": "Bash", "tool_use_id": "toolu_1", "tool_input": {"command": SECRET}}
    assert claude("PreToolUse", **call) == Report(Kind.CALL, call="toolu_1")
    done = claude("PostToolUse", **call, tool_response={"stdout": SECRET})
    assert done == Report(Kind.CALLED, call="toolu_1")
    asked = claude("PermissionRequest", tool_name="Bash", agent_id="a1")
    assert asked == Report(Kind.ASKED, "a1", need=Need.PERMISSION)
    question = claude("PermissionRequest", tool_name="AskUserQuestion")
    assert question == Report(Kind.ASKED, need=Need.ANSWER)
    tasks = [{"status": "running", "command": SECRET}, {"status": "completed"}]
    stop = claude("Stop", background_tasks=tasks, last_assistant_message=SECRET)
    assert stop == Report(Kind.STOPPED, background=1)
    failure = claude("StopFailure", error="rate_limit", last_assistant_message=SECRET)
    assert failure == Report(Kind.FAILED, error="rate_limit")
    assert claude("StopFailure", error=f"<{SECRET}>"[:20]) == Report(Kind.FAILED, error="error")
    idle = claude("Notification", notification_type="idle_prompt", message=SECRET)
    assert idle == Report(Kind.REMINDED, need=Need.PROMPT)
    assert claude("Notification", notification_type="auth_success") is None
    assert claude("SubagentStart", agent_id="a1") == Report(Kind.SUB_STARTED, "a1")
    assert claude("SessionEnd", reason="other") == Report(Kind.ENDED)
    assert claude("SomethingNew") is None


def test_a_finished_background_task_is_no_typed_prompt() -> None:
    turn = claude("UserPromptSubmit", prompt=f"<task-notification>\n{SECRET}")
    assert turn == Report(Kind.TURN, typed=False)


def codex(event: str, **more: Any) -> Report | None:
    return sent("codex", {"hook_event_name": event, "session_id": "s-1", "cwd": "/w", **more})


def test_codex() -> None:
    assert codex("UserPromptSubmit", prompt=SECRET) == Report(Kind.TURN)
    assert codex("PermissionRequest", tool_name="Bash") == Report(Kind.ASKED, need=Need.PERMISSION)
    asked = codex("PreToolUse", tool_name="request_user_input", tool_use_id="c1")
    assert asked == Report(Kind.ASKED, call="c1", need=Need.ANSWER)
    assert codex("Interrupt", turn_id="t") == Report(Kind.INTERRUPTED)


def gemini(event: str, **more: Any) -> Report | None:
    return sent("gemini", {"hook_event_name": event, "session_id": "s-1", "cwd": "/w", **more})


def test_gemini() -> None:
    assert gemini("BeforeAgent", prompt=SECRET) == Report(Kind.TURN)
    permission = {"notification_type": "ToolPermission", "details": {"type": "exec"}}
    assert gemini("Notification", **permission) == Report(Kind.ASKED, need=Need.PERMISSION)
    question = {"notification_type": "ToolPermission", "details": {"type": "ask_user"}}
    assert gemini("Notification", **question) == Report(Kind.ASKED, need=Need.ANSWER)
    assert gemini("AfterAgent", prompt=SECRET, prompt_response=SECRET) == Report(Kind.STOPPED)


def opencode(event: str, **more: Any) -> Report | None:
    return sent("opencode", {"hook_event_name": event, "session_id": "s-1", "cwd": "/w", **more})


def test_opencode() -> None:
    assert opencode("session.status", status="busy") == Report(Kind.TURN)
    assert opencode("session.status", status="idle") == Report(Kind.STOPPED)
    child = opencode("session.status", status="busy", agent_id="ses_2")
    assert child == Report(Kind.SUB_STARTED, "ses_2")
    aborted = opencode("session.error", error="MessageAbortedError")
    assert aborted is not None
    assert aborted.kind is Kind.INTERRUPTED
    assert opencode("permission.asked") == Report(Kind.ASKED, need=Need.PERMISSION)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b'{"tool":"claude"}',
        b'{"tool":"vi","event":"Stop","session":"s","pid":1}',
        b'{"tool":"claude","event":"Stop","session":"../../etc","pid":1}',
        b'{"tool":"claude","event":"Stop","session":"s","pid":0}',
        b'{"tool":"own","event":"dancing","session":"s","pid":1}',
        b'{"tool":"own","event":"working","session":"s","pid":1,"x":' + b"[" * 4000 + b"]" * 4000,
    ],
)
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(ReportError):
        read(data)


def test_what_could_mislead_a_terminal_is_written_out() -> None:
    report = {"tool": "claude", "event": "Stop", "session": "s", "pid": 1}
    teller, _ = read(json.dumps({**report, "folder": "/a\x1b[2J", "pane": "%1; rm"}).encode())
    assert (teller.folder, teller.pane) == ("/a\\x1b[2J", "")


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=700)
    | st.lists(st.text(max_size=9), max_size=3)
    | st.dictionaries(st.sampled_from(["type", "status"]), st.text(max_size=9), max_size=2)
)
NAMES = st.sampled_from([*SENT_BY_TOOL.values(), "prompt", "details", "background_tasks"])


@settings(deadline=None)
@given(st.dictionaries(NAMES, VALUES))
def test_any_payload_is_picked_from(payload: dict[str, Any]) -> None:
    assert len(json.dumps(pick(payload, SENT_BY_TOOL)).encode()) <= MOST_SENT * 5


def test_of_a_flood_a_few_are_read_at_a_time(tmp_path: Path) -> None:
    """The event loop, which SSH shares, is free between two batches."""

    class Endless(socket.socket):
        def recvmsg(self, *_: object) -> Any:
            sender = struct.pack("=3i", os.getpid(), os.geteuid(), os.getegid())
            return b"x", [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, sender)], 0, None

    async def main() -> None:
        taken: list[bytes] = []
        inbox = Inbox(str(tmp_path), os.geteuid(), os.getegid(), taken.append)
        loop = asyncio.get_running_loop()
        with Endless(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
            inbox._socket = flood
            began = loop.time()
            for batch in range(1, 4):
                inbox._read()
                assert len(taken) == batch * BATCH
                assert not loop.remove_reader(flood), "it is not read for a while"
                while not loop.remove_reader(flood):  # noqa: ASYNC110  # the loop alone knows
                    await asyncio.sleep(PACE / 5)
            assert loop.time() - began >= 3 * PACE

    asyncio.run(main())
