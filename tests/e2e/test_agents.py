"""Coding agents and sleep: the real Claude Code on a machine that lives fast, on the stand-in."""

import pytest

from deploy.standin import MachineState
from tests.coding import Desk
from tests.conftest import CloudMaker
from tests.e2e.test_sleep import only
from tests.messages import Model
from tests.support import ready, shell, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(300), pytest.mark.xdist_group("heavy")]

IDLE = {"SWARM_IDLE_TIMEOUT": "10s", "SWARM_IDLE_WARNING": "2s", "SWARM_BOOT_GRACE": "90s"}
"""The tools of a test log in often: what keeps the machine awake must be the lease alone."""


def test_a_turn_keeps_the_machine_awake_to_its_end(
    make_cloud: CloudMaker, the_model: Model
) -> None:
    cloud = make_cloud()
    cloud.up(soon={**IDLE, **only()})
    desk = Desk(ready(cloud), the_model).sit_down("api")
    desk.open("api", "api")
    desk.shows("api", "Claude Code")
    desk.becomes("api", "waiting", 60)
    desk.say("api", "hold on")
    working = desk.becomes("api", "working")
    # Nobody logs in any more: of all signals only the lease is left, for several idle timeouts.
    held = cloud.event("coding.state", state="working")
    until(
        lambda: float(cloud.metric('swarm_agents_seconds_total{state="working"}')) > 40,
        f"a long turn of {working}; {held}",
        120,
    )
    assert cloud.standin.state is MachineState.STARTED
    assert not cloud.events("sleep.warned")
    the_model.released.set()
    cloud.event("coding.state", state="waiting", previous="working")
    cloud.becomes(MachineState.STOPPED, 150)
    # The next login says nothing of one that was over.
    with shell(cloud) as screen:
        screen.expect("It last stopped")
        assert "was cut off" not in screen.seen


def test_the_next_login_says_who_was_cut_off(make_cloud: CloudMaker, the_model: Model) -> None:
    cloud = make_cloud()
    cloud.up(soon={"SWARM_IDLE_TIMEOUT": "off", **only()})
    desk = Desk(ready(cloud), the_model).sit_down("api")
    desk.open("api", "api")
    desk.shows("api", "Claude Code")
    desk.becomes("api", "waiting", 60)
    desk.say("api", "hold on")
    desk.becomes("api", "working")
    page = cloud.machine.volume / ".swarm" / "agents"
    until(lambda: page.exists() and "working" in page.read_text(), "the page on the volume")
    cloud.do(cloud.standin.stop())
    cloud.becomes(MachineState.STOPPED)
    with shell(cloud) as screen:
        screen.expect(f"claude in {desk.home}/api was cut off when the machine stopped")
