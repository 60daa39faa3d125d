"""The state of a coding agent, from hooks, its session file, its processes and its terminal."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.crew import states
from agent.crew.states import (
    ASIDE,
    LIVES,
    QUIET,
    SETTLED,
    Ending,
    Evidence,
    FileSays,
    Kind,
    Member,
    Need,
    Report,
    Standing,
    State,
    hear,
    look,
)

WALL = 1_700_000_000.0


def member(tool: str = "claude") -> Member:
    return Member(
        name=f"{tool}-1",
        tool=tool,
        session="s1",
        process=(100, 1),
        folder="/workspace/api",
        pane="",
        tmux="",
        began=0.0,
        counted=0.0,
        standing=Standing(State.WAITING, Need.PROMPT, 0.0, ""),
        heard=0.0,
        heard_wall=WALL,
    )


def told(who: Member, *reports: Report, at: float = 1.0) -> Member:
    for report in reports:
        who = hear(who, report, at, WALL + at)
    return who


def file(status: str, at: float, waits_for: str = "") -> Evidence:
    return Evidence(True, FileSays(status, waits_for, WALL + at))


def stands(who: Member) -> tuple[State, Need]:
    return who.standing.state, who.standing.need


TURN = Report(Kind.TURN)
ASKED = Report(Kind.ASKED, need=Need.PERMISSION)
WORKING = (State.WORKING, Need.NOTHING)
IDLE = (State.WAITING, Need.PROMPT)
ASKS = (State.WAITING, Need.PERMISSION)


def test_a_turn_works_until_it_stops() -> None:
    who = told(member(), TURN)
    assert stands(who) == WORKING
    assert who.works_since == 1.0
    who = told(who, Report(Kind.STOPPED), at=61.0)
    assert stands(who) == IDLE
    assert who.works_since is None
    assert who.working_seconds == 60.0


def test_one_long_call_is_work_without_a_gap() -> None:
    who = told(member(), TURN, Report(Kind.CALL, call="a"))
    for hour in range(1, 5):
        who = look(who, file("busy", 1.5), hour * 3600.0)
        assert stands(who) == WORKING
        assert who.works_since == 1.0
    assert who.standing.because == "a tool call runs"


def test_a_stop_with_background_tasks_works_on() -> None:
    who = told(member(), TURN, Report(Kind.STOPPED, background=1))
    assert stands(who) == WORKING
    assert who.standing.because == "a background task runs"
    who = told(who, Report(Kind.TURN, typed=False), Report(Kind.STOPPED, background=0), at=5.0)
    assert stands(who) == IDLE
    assert who.prompts == 1


def test_waiting_for_a_permission_holds_nothing() -> None:
    who = told(member(), TURN, Report(Kind.CALL, call="a"), ASKED)
    assert stands(who) == ASKS
    assert not who.works


@pytest.mark.parametrize(
    ("status", "becomes"), [("busy", WORKING), ("idle", IDLE), ("shell", WORKING)]
)
def test_the_session_file_tells_what_no_hook_does(status: str, becomes: tuple[State, Need]) -> None:
    who = told(member(), TURN, ASKED)
    assert stands(look(who, file(status, 1.2), 1.5)) == becomes


def test_a_session_file_older_than_the_hook_counts_only_when_the_tool_had_its_time() -> None:
    who = told(member(), TURN, at=10.0)
    stale = file("idle", 9.0)
    assert stands(look(who, stale, 10.0 + SETTLED - 0.1)) == WORKING
    assert stands(look(who, stale, 10.0 + SETTLED)) == IDLE


def test_a_session_file_that_asks_without_a_hook() -> None:
    who = told(member(), TURN)
    assert stands(look(who, file("waiting", 2.0, "permission prompt"), 2.1)) == ASKS
    answer = look(who, file("waiting", 2.0, "input needed"), 2.1)
    assert stands(answer) == (State.WAITING, Need.ANSWER)


def test_a_subagent_that_asks_does_not_hide_that_another_works() -> None:
    first, second = Report(Kind.SUB_STARTED, "a"), Report(Kind.SUB_STARTED, "b")
    stop, ask = Report(Kind.STOPPED, background=2), replace(ASKED, sub="a")
    who = told(member(), TURN, first, second, ask, stop)
    assert stands(who) == ASKS
    assert who.works, "the other one still works"
    who = told(who, Report(Kind.CALLED, "a"))
    assert stands(who) == WORKING


def test_the_question_of_a_subagent_outlives_the_stop_of_its_session() -> None:
    who = told(member(), TURN, Report(Kind.SUB_STARTED, "a"), replace(ASKED, sub="a"))
    assert stands(told(who, Report(Kind.STOPPED, background=1))) == ASKS


def test_a_reminder_changes_no_question() -> None:
    asked = Report(Kind.ASKED, need=Need.ANSWER)
    who = told(member(), TURN, asked, Report(Kind.REMINDED, need=Need.PERMISSION))
    assert stands(who) == (State.WAITING, Need.ANSWER)


def test_a_failure_stands_until_the_next_prompt() -> None:
    who = told(member(), TURN, Report(Kind.FAILED, error="rate_limit"), Report(Kind.STOPPED))
    assert who.standing.state is State.FAILED
    assert who.standing.because == "rate_limit"
    who = look(who, file("idle", 2.0), 20.0)
    assert who.standing.state is State.FAILED
    assert stands(told(who, TURN, at=30.0)) == WORKING


def test_a_dead_process_has_ended_whatever_its_last_hook_said() -> None:
    who = look(told(member(), TURN), Evidence(alive=False), 2.0)
    assert who.standing.state is State.ENDED
    assert who.standing.because == "its process is gone"
    assert not who.works


def test_a_conversation_that_is_compacted_goes_on_working() -> None:
    assert stands(told(member(), TURN, Report(Kind.STARTED))) == WORKING


def beside(*born: float, ending: Ending | None = None) -> Evidence:
    return Evidence(True, None, False, born, ending)


def test_without_a_file_what_starts_after_the_question_was_granted() -> None:
    who = told(member("codex"), TURN, ASKED, at=10.0)
    server, hook, tool = 5.0, 10.0 + ASIDE / 2, 15.0
    assert stands(look(who, beside(server, hook), 15.0)) == ASKS
    assert stands(look(who, beside(server, hook, tool), tool + LIVES / 2)) == ASKS, (
        "it may be a hook"
    )
    # However late the first look is, the command did not run before.
    assert stands(look(who, beside(server, hook, tool), tool + LIVES)) == WORKING


def test_what_ran_before_a_question_does_not_answer_it() -> None:
    who = told(member("codex"), TURN, Report(Kind.CALL, call="a"), at=10.0)
    who = look(who, beside(12.0), 20.0)
    who = told(who, ASKED, at=30.0)
    assert stands(look(who, beside(12.0), 40.0)) == ASKS


@pytest.mark.parametrize("tool", ["codex", "gemini"])
@pytest.mark.parametrize(
    ("reports", "failed", "becomes"),
    [
        ((TURN,), True, State.FAILED),
        ((TURN, ASKED), False, State.WAITING),
        ((TURN, Report(Kind.CALL, call="a")), False, State.WAITING),
    ],
)
def test_the_end_of_a_turn_that_is_recorded_counts(
    tool: str, reports: tuple[Report, ...], failed: bool, becomes: State
) -> None:
    who = told(member(tool), *reports, at=10.0)
    who = look(who, beside(ending=Ending(WALL + 9.0, failed)), 11.0)
    assert who.standing.state is not becomes or who.standing.need is Need.PERMISSION, (
        "of a turn before"
    )
    ended = look(who, beside(ending=Ending(WALL + 12.0, failed)), 13.0)
    assert ended.standing.state is becomes
    assert ended.standing.need is (Need.NOTHING if failed else Need.PROMPT)
    # The late hook of a call that was interrupted with its turn starts nothing.
    assert not told(ended, Report(Kind.CALLED, call="a"), at=14.0).works
    again = told(ended, TURN, at=20.0)
    assert stands(look(again, beside(ending=Ending(WALL + 12.0, failed)), 21.0)) == WORKING


def test_a_prompt_is_as_old_as_its_hook_and_not_as_its_report() -> None:
    """On a busy machine the report comes late; the turn may have failed by then."""
    who = told(member("codex"), replace(TURN, at=WALL + 10.0), at=12.0)
    failed = look(who, beside(ending=Ending(WALL + 11.0, failed=True)), 13.0)
    assert failed.standing.state is State.FAILED


def test_an_error_that_belongs_to_no_turn_is_no_failure() -> None:
    who = told(member("gemini"), TURN, Report(Kind.STOPPED), at=10.0)
    assert stands(look(who, beside(ending=Ending(WALL + 20.0, failed=True)), 21.0)) == IDLE
    late = told(member("gemini"), TURN, at=10.0)
    late = told(late, Report(Kind.STOPPED), at=12.0)
    failed = look(late, beside(ending=Ending(WALL + 11.0, failed=True)), 13.0)
    assert failed.standing.state is State.FAILED, "its last hook came after the error"


def test_a_turn_whose_terminal_stands_still_for_long_is_unknown() -> None:
    who = told(member("gemini"), TURN)
    who = look(who, Evidence(True, None, True), 2.0)
    assert stands(look(who, Evidence(True, None, False), 2.0 + QUIET - 1)) == WORKING
    doubted = look(who, Evidence(True, None, False), 2.0 + QUIET)
    assert doubted.standing.state is State.UNKNOWN
    assert not doubted.works
    assert stands(told(doubted, Report(Kind.CALLED), at=60.0)) == WORKING


def test_a_turn_without_a_terminal_is_not_doubted() -> None:
    who = told(member("codex"), TURN)
    assert stands(look(who, Evidence(True, None, None), 3600.0)) == WORKING


def test_since_is_when_the_state_began() -> None:
    who = told(member(), TURN, at=10.0)
    who = told(who, Report(Kind.CALL, call="a"), Report(Kind.CALLED, call="a"), at=50.0)
    assert who.standing.since == 10.0


REPORTS = st.builds(
    Report,
    st.sampled_from(Kind),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(["", "c1", "c2"]),
    st.sampled_from(Need),
    st.integers(0, 3),
    st.booleans(),
)
EVIDENCE = st.builds(
    Evidence,
    st.just(True),
    st.none()
    | st.builds(
        FileSays, st.sampled_from(["busy", "idle", "waiting", "shell", "new"]), st.just("")
    ),
    st.none() | st.booleans(),
    st.lists(st.floats(0, 50), max_size=3).map(tuple),
    st.none() | st.builds(Ending, st.floats(WALL - 5, WALL + 50), st.booleans()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(REPORTS | EVIDENCE, max_size=40), st.sampled_from(["claude", "codex", "own"]))
def test_no_state_sticks(steps: list[Report | Evidence], tool: str) -> None:
    """Whatever came before: idle by its file means idle, and a dead process has ended."""
    who = member(tool)
    now = 0.0
    for step in steps:
        now += 1.0
        who = hear(who, step, now, WALL) if isinstance(step, Report) else look(who, step, now)
        assert (who.works_since is not None) == who.works
        assert len(who.subs) <= states.MOST_SUBS
        total = who.working_seconds + who.waiting_seconds
        assert 0 <= total <= now
    if not who.ended:
        idle = look(who, Evidence(True, FileSays("idle")), now + SETTLED)
        assert not idle.works
    assert look(who, Evidence(alive=False), now + 1).ended
