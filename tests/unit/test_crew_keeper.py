"""The crew receives hooks on its socket, and checks the reporter's processes and files."""

import asyncio
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.bus import Bus
from agent.crew import keeper, page
from agent.crew.keeper import Crew
from agent.crew.page import CrewPage
from agent.crew.states import CrewRecord
from agent.crew.tell import SOCKET, send
from agent.platform.account import Account
from agent.settings.current import Current
from agent.settings.load import load
from tests.support import until


def a_page(folder: Path, bus: Bus) -> CrewPage:
    return CrewPage(page.page(str(folder), bus), ())


def states(crew: Crew) -> list[str]:
    return [each.standing.state.value for each in crew.members]


def test_the_first_one_is_looked_at_however_long_there_was_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came long after the agent's start: its record is read anyway."""
    monkeypatch.setattr(keeper, "LATER", 0.05)
    monkeypatch.setattr(keeper, "SOON", 0.02)
    record = tmp_path / "record"
    record.touch()
    account = Account("me", os.geteuid(), os.getegid(), str(tmp_path), "/bin/sh", locked=False)
    settings = load({"SWARM_RUN_DIR": str(tmp_path)}, privileged=False).settings
    report = {"tool": "codex", "session": "s", "folder": "/w", "record": str(record)}

    async def scene(pid: int) -> None:
        bus = Bus()
        crew = Crew(CrewRecord(), Current(settings), account, a_page(tmp_path, bus), bus)
        running = asyncio.create_task(crew.run())
        await asyncio.to_thread(until, (tmp_path / SOCKET).exists, "the socket")
        await asyncio.sleep(4 * keeper.LATER)  # long enough that a look was due without any member
        environ = {"SWARM_RUN_DIR": str(tmp_path)}
        send({**report, "event": "UserPromptSubmit"}, pid, environ)
        await asyncio.to_thread(until, lambda: states(crew) == ["working"], "the prompt")
        now = datetime.fromtimestamp(time.time(), UTC).isoformat()
        line = {"timestamp": now, "type": "event_msg", "payload": {"type": "turn_aborted"}}
        record.write_text(json.dumps(line) + "\n")
        await asyncio.to_thread(until, lambda: states(crew) == ["waiting"], "a look")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as tool:
        asyncio.run(scene(tool.pid))
        tool.communicate(b"\n")


@pytest.mark.parametrize(("tool", "left"), [("claude", 1), ("gemini", 1), ("codex", 2)])
def test_a_process_of_one_conversation_is_one_member(tmp_path: Path, tool: str, left: int) -> None:
    account = Account("me", os.geteuid(), os.getegid(), str(tmp_path), "/bin/sh", locked=False)
    settings = load({"SWARM_RUN_DIR": str(tmp_path)}, privileged=False).settings

    async def scene() -> None:
        bus = Bus()
        crew = Crew(CrewRecord(), Current(settings), account, a_page(tmp_path, bus), bus)
        events = {"gemini": ("SessionStart", "BeforeAgent")}
        for number, event in enumerate(events.get(tool, ("SessionStart", "UserPromptSubmit"))):
            report = {"tool": tool, "event": event, "session": f"s{number}", "pid": os.getpid()}
            crew.hear(json.dumps(report).encode())
        assert len(crew.members) == left
        assert "working" in states(crew)

    asyncio.run(scene())
