"""The real Codex, Gemini CLI and OpenCode as seen by the machine, with a stand-in for their model.

Each tool reports different things; docs/agents.md lists what cannot be known.
"""

from collections.abc import Iterator

import pytest

from tests.coding import PLAIN, Desk
from tests.codingtools import OFFLINE, desk_with_tools, prepare, sit, tool
from tests.conftest import BoxMaker
from tests.messages import Model, model
from tests.support import Box, Key, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(300), pytest.mark.xdist_group("tools")]


@pytest.fixture
def desk(make_box: BoxMaker, the_model: Model) -> Desk:
    return desk_with_tools(make_box(), the_model, PLAIN)


BOTH = pytest.mark.parametrize("name", ["codex", "gemini"])


@BOTH
def test_a_turn_is_work_until_it_ends(desk: Desk, name: str) -> None:
    sit(desk, name)
    desk.say("api", "hold on")
    working = desk.becomes("api", "working", works=True)
    assert working["tool"] == name
    assert working["place"].startswith("tmux %")
    desk.model.released.set()
    desk.becomes("api", "waiting", need="the next prompt", works=False)
    assert desk.agent("api")["prompts"] == 1


@BOTH
def test_a_permission_is_waited_for_and_its_grant_is_work(desk: Desk, name: str) -> None:
    """Neither tool reports the grant: the running command shows it."""
    made = sit(desk, name)
    desk.say("api", "run touch granted; until test -e ended; do sleep 0.2; done")
    desk.becomes("api", "waiting", need="a permission", works=False)
    desk.shows("api", made.asks)
    desk.key("api", "Enter")
    until(lambda: desk.sh("ls api") == "granted\n", "the command")
    # Not at the call's end, which a hook reports: then no call runs.
    until(lambda: states(desk)[2:], f"a change; {desk.box.events('coding.state')}")
    assert states(desk)[1:3] == ["needs a permission", "a tool call runs"]
    desk.sh("touch api/ended")
    desk.becomes("api", "waiting", need="the next prompt", works=False)


def states(desk: Desk) -> list[str]:
    """Its states and their reasons, since its first prompt."""
    seen = [each["because"] for each in desk.box.events("coding.state")]
    return seen[seen.index("a turn runs") :] if "a turn runs" in seen else []


@BOTH
def test_a_denied_permission_is_no_work(desk: Desk, name: str) -> None:
    made = sit(desk, name)
    desk.say("api", "run touch denied")
    desk.becomes("api", "waiting", need="a permission")
    desk.shows("api", made.asks)
    desk.key("api", "Escape")
    desk.becomes("api", "waiting", need="the next prompt", works=False)


@BOTH
def test_an_interrupted_turn_is_over(desk: Desk, name: str) -> None:
    sit(desk, name)
    desk.say("api", "hold on")
    desk.becomes("api", "working")
    desk.interrupt("api", name)
    desk.becomes("api", "waiting", need="the next prompt", works=False)


@BOTH
def test_an_error_of_the_model_is_a_failure_until_the_next_prompt(desk: Desk, name: str) -> None:
    """Neither has a hook for it: its own record of the conversation shows it."""
    sit(desk, name)
    desk.say("api", "err400 please")
    desk.becomes("api", "failed", works=False)
    desk.say("api", "hello")
    desk.becomes("api", "waiting", need="the next prompt", prompts=2)


@BOTH
def test_a_command_that_is_interrupted_is_over(desk: Desk, name: str) -> None:
    made = sit(desk, name)
    desk.say("api", "run touch granted; until test -e ended; do sleep 0.2; done")
    desk.becomes("api", "waiting", need="a permission")
    desk.shows("api", made.asks)
    desk.key("api", "Enter")
    until(lambda: desk.sh("ls api") == "granted\n", "the command")
    desk.interrupt("api", name)
    desk.becomes("api", "waiting", need="the next prompt", works=False)
    desk.sh("touch api/ended")


@BOTH
@pytest.mark.parametrize("how", ["kill -9", "closed terminal"])
def test_an_agent_whose_process_is_gone_has_ended(desk: Desk, name: str, how: str) -> None:
    sit(desk, name)
    desk.say("api", "hold on")
    working = desk.becomes("api", "working")
    if how == "kill -9":
        desk.sh(f"kill -9 {working['pid']}")
    else:
        desk.tmux("kill-session -t api")
    desk.becomes("api", "ended", works=False)


def test_opencode_works_until_its_turn_ends(desk: Desk) -> None:
    """The plugin, in OpenCode without a terminal."""
    made = tool("opencode", desk)
    prepare(desk, made)
    desk.open("api", "api", f"{made.command} run 'hold on'", {**OFFLINE, **made.environ})
    working = desk.becomes("api", "working", 120, works=True)
    assert working["tool"] == "opencode"
    desk.model.released.set()
    desk.becomes("api", "ended", 120, works=False)
    desk.box.event("coding.state", state="ended")  # the log is written a little later
    seen = [each["state"] for each in desk.box.events("coding.state")]
    assert seen[-3:] == ["working", "waiting", "ended"], "its end came from the plugin"


@pytest.fixture(scope="module")
def shared_desk(tmp_path_factory: pytest.TempPathFactory, key: Key) -> Iterator[Desk]:
    box = Box(tmp_path_factory.mktemp("shared") / "box", key)
    with model() as told:
        try:
            yield desk_with_tools(box, told, PLAIN)
        finally:
            box.machine.kill()


@pytest.fixture
def opencode(shared_desk: Desk) -> Desk:
    """OpenCode at its prompt: the one of the test before, if that left it there.

    A start takes 9 s of CPU. Its window still shows earlier prompts: each test begins its own
    otherwise, so that `say` sees it.
    """
    desk = shared_desk
    if desk.agent("api").get("need") != "the next prompt":
        desk.tmux("kill-session -t api 2>/dev/null || :")
        sit(desk, "opencode")
    desk.sh("rm -f api/ended")
    return desk


@pytest.mark.parametrize(("pressed", "becomes"), [("Enter", "working"), ("Escape", "waiting")])
def test_opencode_asks_for_a_permission(opencode: Desk, pressed: str, becomes: str) -> None:
    desk = opencode
    desk.say("api", f"run : {pressed}; until test -e ended; do sleep 0.2; done")
    desk.becomes("api", "waiting", need="a permission", works=False)
    desk.shows("api", "Permission required")
    desk.key("api", pressed)
    desk.becomes("api", becomes, need="" if becomes == "working" else "the next prompt")
    desk.sh("touch api/ended")
    desk.becomes("api", "waiting", need="the next prompt", works=False)


def test_opencode_that_is_interrupted_is_over(opencode: Desk) -> None:
    opencode.say("api", "hold on until Escape")
    opencode.becomes("api", "working")
    opencode.interrupt("api", "opencode")
    opencode.becomes("api", "waiting", need="the next prompt", works=False)


def test_an_error_of_the_model_fails_opencode_until_the_next_prompt(opencode: Desk) -> None:
    opencode.say("api", "err400 please")
    failed = opencode.becomes("api", "failed", works=False)
    opencode.say("api", "hello")
    opencode.becomes("api", "waiting", need="the next prompt", prompts=failed["prompts"] + 1)


@pytest.mark.parametrize("how", ["kill -9", "closed terminal"])
def test_opencode_whose_process_is_gone_has_ended(opencode: Desk, how: str) -> None:
    opencode.say("api", f"hold on until {how}")
    working = opencode.becomes("api", "working")
    if how == "kill -9":
        opencode.sh(f"kill -9 {working['pid']}")
    else:
        opencode.tmux("kill-session -t api")
    opencode.becomes("api", "ended", works=False)
