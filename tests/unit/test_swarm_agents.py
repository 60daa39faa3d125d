"""Coding agents as seen from a laptop."""

import msgspec
import pytest

from agent.observe.reports import CodingAgentReport
from deploy.swarm.agents import AttachError, Seen, attach_script, last_seen, summary, text
from deploy.swarm.place import Deployed


def report(name: str, state: str, need: str = "", pane: str = "") -> CodingAgentReport:
    return CodingAgentReport(
        name=name,
        tool="claude",
        state=state,
        need=need,
        because="",
        since=100.0,
        began=0.0,
        folder="/workspace/api",
        place="",
        pane=pane,
        tmux="/tmp/tmux-1000/default" if pane else "",
        pid=1,
        prompts=1,
        tool_calls=1,
        works=False,
        urgent=bool(need),
        note="",
        subagents=[],
    )


WAITS = report("claude-2", "waiting", "an answer", "%7")
SEEN = Seen(200.0, [WAITS, report("codex-1", "working", pane="%1"), report("claude-1", "ended")])


def test_the_list_names_the_most_urgent_one_and_how_old_that_is() -> None:
    assert summary(SEEN, 210.0) == "claude-2 waits for an answer and 1 more"
    assert (
        summary(SEEN, 200.0 + 3 * 3600) == "claude-2 waits for an answer and 1 more, 3 h 00 min ago"
    )
    assert summary(Seen(0.0, []), 1.0) == ""


def test_times_are_those_of_when_it_was_seen() -> None:
    shown = text(SEEN, 200.0 + 7200)
    assert shown.splitlines()[0] == "as of 2 h 00 min ago:"
    assert "1 min 40 s" in shown
    assert text(Seen(0.0, []), 1.0) == "not asked yet while it was awake"


def test_attaching_goes_to_who_waits_longest_or_is_named() -> None:
    assert "select-pane -t %7" in attach_script(SEEN, "")
    assert "select-pane -t %1" in attach_script(SEEN, "codex-1")


@pytest.mark.parametrize(
    ("seen", "agent", "says"),
    [
        (SEEN, "claude-1", "there is no coding agent claude-1"),
        (Seen(0.0, []), "", "there is no coding agent"),
        (Seen(1.0, [report("claude-1", "working")]), "", "not in a tmux window"),
    ],
)
def test_there_may_be_nowhere_to_go(seen: Seen, agent: str, says: str) -> None:
    with pytest.raises(AttachError, match=says):
        attach_script(seen, agent)


def test_the_laptop_remembers_what_it_saw() -> None:
    state = Deployed(agents=msgspec.json.encode([WAITS]).decode(), agents_at=5.0)
    assert last_seen(state) == Seen(5.0, [WAITS])
    assert last_seen(Deployed()) == Seen(0.0, [])
