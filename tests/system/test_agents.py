"""Coding agents as seen by the machine: the real Claude Code in tmux, with a fake model."""

import time

import pytest

from tests.coding import CLAUDE, PLAIN, SOON, Desk
from tests.conftest import BoxMaker
from tests.messages import Model
from tests.support import ready, until
from tests.system.test_notify import webhook

pytestmark = [pytest.mark.root, pytest.mark.timeout(300), pytest.mark.xdist_group("claude")]


@pytest.fixture
def desk(make_box: BoxMaker, the_model: Model) -> Desk:
    """A machine with a folder `api` that Claude Code trusts, and its window of this name."""
    desk = Desk(ready(make_box().boot(PLAIN)), the_model).sit_down("api", "web", "docs")
    desk.open("api", "api")
    desk.shows("api", "Claude Code")
    desk.becomes("api", "waiting", 60, need="the next prompt")
    return desk


def test_a_turn_is_work_until_it_ends(desk: Desk) -> None:
    desk.say("api", "hold on")
    # Its own file says that it works before its hook has counted the prompt.
    desk.becomes("api", "working", works=True, prompts=1)
    says = f"claude in {desk.home}/api has worked for"
    until(lambda: says in desk.box.agent("why").stdout, says)
    assert says in desk.box.agent("awake", "--list").stdout
    desk.model.released.set()
    desk.becomes("api", "waiting", need="the next prompt", works=False)
    assert "has worked for" not in desk.box.agent("awake", "--list").stdout


def test_a_permission_is_waited_for_and_its_grant_is_work(desk: Desk) -> None:
    desk.say("api", "run touch asked; until test -e ended; do sleep 0.2; done")
    waiting = desk.becomes("api", "waiting", need="a permission", works=False)
    assert waiting["place"].startswith("tmux %")
    desk.answer("api", "Enter")
    desk.becomes("api", "working", works=True)
    desk.interrupt("api", "claude")
    desk.becomes("api", "waiting", need="the next prompt")


def test_a_permission_is_reported_and_its_answer_seen_within_seconds(
    make_box: BoxMaker, the_model: Model
) -> None:
    """Reported to a real webhook; the time of the answer is the agent's own."""
    with webhook() as hook:
        settings = {"SWARM_NOTIFY": hook.url, "SWARM_NOTIFY_WAIT": "1s"}
        desk = Desk(ready(make_box().boot(settings)), the_model).sit_down("api")
        desk.open("api", "api")
        desk.shows("api", "Claude Code")
        desk.say("api", "run touch asked; until test -e ended; do sleep 0.2; done")
        desk.becomes("api", "waiting", need="a permission")
        assert desk.home not in hook.says("claude-1 waits for a permission")
        desk.shows("api", "Esc to cancel")
        answered = time.time()
        desk.key("api", "Enter")
        working = desk.becomes("api", "working")
        # The time until the tool writes its file does not count: it writes it after the grant.
        assert 0 < working["since"] - answered < SOON, working
        desk.box.event("checkpoint.made", cause="before an agent's turn")


def test_a_denied_permission_is_no_work(desk: Desk) -> None:
    desk.say("api", "run touch denied")
    desk.becomes("api", "waiting", need="a permission")
    desk.answer("api", "Escape")
    desk.becomes("api", "waiting", need="the next prompt")


def test_a_question_waits_for_an_answer(desk: Desk) -> None:
    desk.say("api", "ask me")
    desk.becomes("api", "waiting", need="an answer")
    desk.answer("api", "Enter")
    desk.becomes("api", "waiting", need="the next prompt")


def test_a_declined_question_is_no_work(desk: Desk) -> None:
    desk.say("api", "ask me")
    desk.becomes("api", "waiting", need="an answer")
    desk.answer("api", "Escape")
    desk.becomes("api", "waiting", need="the next prompt")


@pytest.mark.parametrize("pressed", ["Escape", "C-c"])
def test_an_interrupted_turn_is_over(desk: Desk, pressed: str) -> None:
    """No hook reports it: the tool's own session file does."""
    desk.say("api", "hold on")
    desk.becomes("api", "working")
    desk.interrupt("api", "claude", pressed)
    desk.becomes("api", "waiting", need="the next prompt", works=False)


def test_an_interrupted_tool_is_over(desk: Desk) -> None:
    desk.say("api", "run touch asked; until test -e ended; do sleep 0.2; done")
    desk.becomes("api", "waiting", need="a permission")
    desk.answer("api", "Enter")
    desk.becomes("api", "working")
    desk.interrupt("api", "claude", "C-c")
    desk.becomes("api", "waiting", need="the next prompt", works=False)


def test_an_error_of_the_model_is_a_failure_until_the_next_prompt(desk: Desk) -> None:
    desk.say("api", "err400 please")
    desk.becomes("api", "failed", works=False)
    desk.say("api", "hello")
    desk.becomes("api", "waiting", need="the next prompt", prompts=2)


def test_a_background_task_holds_after_the_turn(desk: Desk) -> None:
    desk.say("api", "bg touch asked; until test -e ended; do sleep 0.2; done")
    desk.becomes("api", "waiting", need="a permission")
    desk.answer("api", "Enter")
    desk.becomes("api", "working", because="a background task runs", works=True)
    desk.sh("touch api/ended")
    desk.becomes("api", "waiting", need="the next prompt", works=False)
    # The task's end came as a prompt that nobody typed.
    assert desk.agent("api")["prompts"] == 1


def test_a_subagent_that_asks_makes_its_session_wait(desk: Desk) -> None:
    desk.say("api", "sub: run touch made")
    waiting = desk.becomes("api", "waiting", need="a permission")
    assert waiting["because"] == "a subagent needs a permission"
    assert [each["state"] for each in waiting["subagents"]] == ["waiting"]
    desk.answer("api", "Enter")
    done = desk.becomes("api", "waiting", need="the next prompt", works=False)
    assert done["subagents"] == []


@pytest.mark.parametrize("how", ["kill -9", "closed terminal", "/exit"])
def test_an_agent_whose_process_is_gone_has_ended(desk: Desk, how: str) -> None:
    desk.say("api", "hold on")
    working = desk.becomes("api", "working")
    if how == "kill -9":
        desk.sh(f"kill -9 {working['pid']}")
    elif how == "closed terminal":
        desk.tmux("kill-session -t api")
    else:
        desk.interrupt("api", "claude")
        desk.becomes("api", "waiting")
        desk.key("api", "C-u")
        desk.say("api", "/exit")
    desk.becomes("api", "ended", works=False)
    assert not desk.box.agent("awake", "--list").stdout.startswith("lease")


def test_three_at_once_are_told_apart(desk: Desk) -> None:
    for folder in ("web", "docs"):
        desk.open(folder, folder)
        desk.shows(folder, "Claude Code")
        desk.becomes(folder, "waiting", 60)
    desk.say("api", "hold on")
    desk.say("web", "run touch made")
    desk.becomes("api", "working")
    desk.becomes("web", "waiting", need="a permission")
    desk.becomes("docs", "waiting", need="the next prompt", prompts=0)
    names = [each["name"] for each in desk.agents()]
    assert sorted(names) == ["claude-1", "claude-2", "claude-3"]
    # The one that needs a person comes first.
    assert desk.agents()[0]["folder"] == f"{desk.home}/web"
    lines = desk.box.agent("agents").stdout.splitlines()
    assert "waits for a permission" in lines[1]


def test_headless_claude_works_until_it_ends(desk: Desk) -> None:
    desk.open("web", "web", f"{CLAUDE} -p 'hold on'")
    desk.becomes("web", "working", 60)
    desk.model.released.set()
    desk.becomes("web", "ended")


@pytest.mark.long
@pytest.mark.xdist_group("retried")
def test_an_error_that_is_retried_for_minutes_is_work_and_then_a_failure(desk: Desk) -> None:
    desk.say("api", "err500 please")
    desk.becomes("api", "working")
    desk.becomes("api", "failed", 260, works=False)
