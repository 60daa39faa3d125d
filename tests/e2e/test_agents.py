"""Coding agents and sleep: the real Claude Code on a machine with short times, on the stand-in."""

import pytest

from deploy.standin import MachineState
from tests.coding import Desk
from tests.conftest import CloudMaker
from tests.e2e.test_sleep import only
from tests.messages import Model
from tests.support import ready, shell, until
from tests.system.test_hooks import FLOOD

pytestmark = [pytest.mark.root, pytest.mark.timeout(300), pytest.mark.xdist_group("claude")]

IDLE = {"SWARM_IDLE_TIMEOUT": "10s", "SWARM_IDLE_WARNING": "2s", "SWARM_BOOT_GRACE": "90s"}
"""The tools of a test log in often: what keeps the machine awake must be the lease alone."""


@pytest.mark.long
@pytest.mark.xdist_group("awake")
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
    # Nobody logs in any more: only the lease is active, for several idle timeouts.
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
    # The next greeting does not mention an agent that had ended.
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


def test_a_flood_of_hooks_keeps_nobody_out_and_does_not_keep_the_machine_awake(
    make_cloud: CloudMaker,
) -> None:
    cloud = make_cloud().up(soon={**IDLE, **only(), "SWARM_BOOT_GRACE": "20s"})
    count = cloud.machine.folder / "home" / cloud.user / "count"
    done = cloud.ssh(
        "cat >flood.py; setsid python3 flood.py count >/dev/null 2>&1 </dev/null &",
        input=FLOOD,
    )
    assert done.returncode == 0, done
    until(lambda: count.exists() and count.read_text() != "", "the flood")
    before = int(count.read_text())
    for _ in range(3):
        assert cloud.ssh("echo in").stdout == "in\n"
    until(lambda: int(count.read_text() or 0) > before, "more of it")
    # Nobody logs in any more, and no report shows it as working.
    cloud.becomes(MachineState.STOPPED, 150)
    assert int(count.read_text()) > 10_000
    # It ended with the machine, not earlier.
    assert cloud.events("sleep.began")[-1]["because"].startswith("idle"), cloud.events(
        "sleep.began"
    )
    with shell(cloud) as screen:
        screen.expect("It last stopped")
