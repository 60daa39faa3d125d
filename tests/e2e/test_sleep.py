"""A machine that sleeps when idle, on the stand-in, with real SSH.

Times are shortened (tests.cloud.SOON); tests compare the order of events and their own times.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from deploy.api import MachinesApi
from deploy.standin import MachineState
from tests.cloud import IDLE, WARNING, Cloud, at
from tests.conftest import CloudMaker
from tests.support import shell, until
from tests.world import world

pytestmark = pytest.mark.root

LATER = {"SWARM_IDLE_TIMEOUT": "10m"}
"""For tests that are not about when an idle machine sleeps."""
GRACE = {"SWARM_BOOT_GRACE": "15s"}
"""For tests whose first login has to come before the sleep."""
SIGNALS = ("TERMINAL", "SSH", "CPU", "NETWORK", "WRITES", "CHECK")


def only(*names: str) -> dict[str, str]:
    """Settings that switch off every signal except these."""
    return {f"SWARM_IDLE_{name}": "off" for name in SIGNALS if name not in names}


def in_home(cloud: Cloud, path: str, content: str, mode: int = 0o755) -> Path:
    """Create a file of the login user in a part of the home that lives on the volume."""
    cloud.machine.volume.mkdir(parents=True, exist_ok=True)
    target = cloud.machine.volume / ".home" / path
    missing = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content)
    target.chmod(mode)
    for place in (target, *missing):
        os.chown(place, 1000, 1000)
    return target


def test_sleeps_when_idle_wakes_on_connect_and_says_so(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up()
    with shell(cloud) as screen:
        screen.expect("swarm-agent: sleeps 6 s after the last activity")
        starts = cloud.standin.starts  # on a busy computer it may have slept before this login
        screen.expect("this machine sleeps in 2 s (idle for 4 s)")
        screen.expect("To stay: press a key, or type: swarm-agent awake --for 2h")
        screen.expect("goes to sleep (idle for 4 s). Connect again to wake it up.")
    cloud.becomes(MachineState.STOPPED)
    assert "the machine has stopped (status 0)" in cloud.said_by_platform
    began = cloud.events("sleep.began")[-1]
    opened = cloud.events("ssh.session.opened")[-1]
    assert began["mode"] == "stop"
    assert at(began) - at(opened) >= IDLE + WARNING - 0.1
    with shell(cloud) as screen:
        screen.expect("awake: sleep: idle for 4 s.")
        screen.expect("% of")
        screen.type("echo $((40+2))\n")
        screen.expect("42")
    assert cloud.standin.starts == starts + 1


def test_wakes_the_waiting_client_while_it_is_still_going_to_sleep(make_cloud: CloudMaker) -> None:
    """A client that comes while the machine stops is held, and served by the next run."""
    cloud = make_cloud().up(LATER)
    assert cloud.ssh("nohup sh -c 'trap \"\" TERM HUP; sleep 2' >/dev/null 2>&1 &").returncode == 0
    cloud.sleep_now()
    cloud.event("agent.stopping")
    assert cloud.ssh("echo served").stdout == "served\n"
    assert cloud.standin.starts == 2


def test_a_scan_is_back_asleep_within_the_window(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up({"SWARM_IDLE_TIMEOUT": "10m"})
    cloud.sleep_now()
    cloud.becomes(MachineState.STOPPED)
    with socket.create_connection(("127.0.0.1", cloud.port)) as scanner:
        scanner.settimeout(30)
        assert scanner.recv(4) == b"SSH-"
    cloud.becomes(MachineState.STARTED)
    cloud.becomes(MachineState.STOPPED)
    assert [event["reason"] for event in cloud.events("wake.reason")][-1] == "scan"
    assert "nobody logged in within 3 s" in cloud.events("sleep.began")[-1]["because"]


def test_a_login_in_the_window_makes_it_an_ordinary_wake(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up(LATER | {"SWARM_WAKE_WINDOW": "1m"})
    assert cloud.ssh("true").returncode == 0
    assert cloud.event("wake.reason")["reason"] == "login"
    sleeps = "sleeps in (10 min|9 min)"  # it may be some time ago
    until(lambda: re.search(sleeps, cloud.agent("why").stdout), "the whole timeout")


BUSY = {
    "CPU": "while [ ! -e enough ]; do :; done",
    "WRITES": "until [ -e enough ]; do head -c 200000 /dev/zero >>data; sync data; sleep .3; done",
    "CHECK": "until [ -e enough ]; do sleep .1; done",
    "NETWORK": "cat </dev/tcp/SERVER >/dev/null & until [ -e enough ]; do sleep 1; done; kill $!",
}


@contextmanager
def trickle() -> Iterator[str]:
    """A server that sends 20 KB each tenth of a second; its address and port for bash."""
    with world(1, 1) as internet, socket.create_server((internet.edge_address, 0)) as server:

        def serve() -> None:
            try:
                with server.accept()[0] as client:
                    while True:
                        client.sendall(b"x" * 20_000)
                        time.sleep(0.1)
            except OSError:
                return  # the other side has closed, or nobody connected

        threading.Thread(target=serve, daemon=True).start()
        yield f"{internet.edge_address}/{server.getsockname()[1]}"


@pytest.mark.parametrize("name", BUSY)
def test_stays_awake_while_a_detached_process_works_and_no_longer(
    make_cloud: CloudMaker, name: str
) -> None:
    # On a busy computer even a busy process gets little CPU.
    cloud = make_cloud().up_patiently(only(name) | {"SWARM_IDLE_CPU": "10%"})
    in_home(cloud, ".config/swarm/checks.d/busy", '#!/bin/sh\ntest ! -e "$HOME/enough"\n')
    home = cloud.machine.folder / "home" / cloud.user
    with trickle() as server:
        work = f"{BUSY[name].replace('SERVER', server)}; date +%s.%N >ended"
        assert cloud.ssh(f"nohup bash -c {shlex.quote(work)} >/dev/null 2>&1 &").returncode == 0
        cloud.hurry()
        cloud.stays_awake()
        (home / "enough").touch()
        cloud.becomes(MachineState.STOPPED)
    ended = float((home / "ended").read_text())
    # The last look saw it a second before its exit.
    assert at(cloud.event("sleep.began")) >= ended + IDLE + WARNING - 1.5


def test_typing_keeps_it_awake(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up_patiently(only("TERMINAL"))
    with shell(cloud) as screen:
        screen.expect("$")
        # The kernel moves the atime of a terminal only every 8 seconds.
        cloud.hurry(10)
        for _ in range(28):
            screen.type(" ")
            cloud.stays_awake(0.5)
        typed = cloud.agent("why").stdout
        assert re.search(r"terminal +\d+ s ago +typing on pts/0: session \w+, dev from", typed)
        cloud.becomes(MachineState.STOPPED)


def test_traffic_of_a_session_keeps_it_awake(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up_patiently(only("SSH"))
    talks = "until [ -e enough ]; do head -c 2000 /dev/zero; sleep .25; done"
    with subprocess.Popen(cloud.ssh_command(talks), stdout=subprocess.DEVNULL) as client:
        cloud.event("ssh.session.opened")
        cloud.hurry()
        cloud.stays_awake()
        (cloud.machine.folder / "home" / cloud.user / "enough").touch()
        assert client.wait(60) == 0
    cloud.becomes(MachineState.STOPPED)


def test_sleeps_despite_an_idle_connection_kept_alive_and_a_lingering_editor_server(
    make_cloud: CloudMaker,
) -> None:
    cloud = make_cloud().up({"SWARM_IDLE_CPU": "5%"})
    server = ".vscode-server/bin/abc/node"
    start = (
        f"mkdir -p $(dirname {server}); cp /bin/bash {server}; ./{server} -c 'while :; do :; done'"
    )
    command = cloud.ssh_command(start, options=["-oServerAliveInterval=1"])
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as client:
        until(
            lambda: "ignored (.vscode-server)" in cloud.agent("why").stdout, "the editor's server"
        )
        cloud.becomes(MachineState.STOPPED)
        client.wait(30)


def test_connections_without_a_login_are_no_activity(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up_patiently({})
    assert cloud.ssh("true").returncode == 0
    changed = cloud.hurry()
    probes = []

    def probed_until_warned() -> bool:
        with socket.create_connection(("127.0.0.1", cloud.port)) as probe:
            probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
        probes.append(time.time())
        return bool(cloud.events("sleep.warned"))

    until(probed_until_warned, "a warning")
    # If they counted as activity, each of these would have delayed the warning.
    late = [probe for probe in probes if probe > changed + 1]
    assert len(late) > 1
    assert late[0] < at(cloud.event("sleep.warned")) - 1


def test_awake_command_holds_exactly_as_long_and_passes_its_status_on(
    make_cloud: CloudMaker,
) -> None:
    cloud = make_cloud().up_patiently(only())
    command = "swarm-agent awake -- sh -c 'read -r line; date +%s.%N; exit 7'"
    with subprocess.Popen(
        cloud.ssh_command(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert cloud.event("lease.taken")["lease"].startswith("sh-")
        cloud.hurry()
        cloud.stays_awake()
        said = client.communicate("enough\n")[0]
    assert client.returncode == 7
    cloud.becomes(MachineState.STOPPED)
    assert at(cloud.event("lease.ended")) >= float(said)
    assert at(cloud.event("sleep.began")) - float(said) >= IDLE + WARNING - 1.5


def test_awake_with_a_missing_command_says_127_and_holds_nothing(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up(LATER)
    until(lambda: cloud.agent("why").returncode == 0, "the control socket")
    result = cloud.ssh("swarm-agent awake -- no-such-program")
    assert result.returncode == 127
    assert "cannot run no-such-program" in result.stderr
    cloud.event("lease.ended")


def test_leases_are_taken_listed_capped_and_released_by_the_login_user(
    make_cloud: CloudMaker,
) -> None:
    cloud = make_cloud().up(LATER | {"SWARM_LEASE_MAX": "3h"})
    until(lambda: cloud.agent("why").returncode == 0, "the control socket")
    assert cloud.ssh("swarm-agent awake --for 2h --name build").stdout == (
        "build: awake for 2 h 00 min\n"
    )
    assert cloud.ssh("swarm-agent awake --for 2d").stdout == (
        "by-hand: awake for 3 h 00 min (the longest that SWARM_LEASE_MAX allows)\n"
    )
    assert "build" in cloud.ssh("swarm-agent awake --list").stdout
    assert cloud.ssh("swarm-agent awake --release build").stdout == "build: released\n"
    assert "build" not in cloud.ssh("swarm-agent awake --list").stdout
    again = cloud.ssh("swarm-agent awake --release build")
    assert again.returncode == 1
    assert "there is no lease 'build'" in again.stderr
    assert "only root may do this" in cloud.ssh("swarm-agent sleep").stderr


def test_leases_survive_a_killed_agent(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up(only() | LATER)
    until(lambda: cloud.agent("why").returncode == 0, "the control socket")
    assert cloud.ssh("swarm-agent awake --for 1h --name kept").returncode == 0
    command = cloud.ssh_command("swarm-agent awake --name gone -- sleep 600")
    with subprocess.Popen(command):
        cloud.event("lease.taken", lease="gone")
        cloud.machine.signal(signal.SIGKILL)
        until(lambda: len(cloud.events("boot.listening")) == 2, "the restart after a failure")
        until(lambda: "kept" in cloud.agent("awake", "--list").stdout, "the lease")
    assert "gone" not in cloud.agent("awake", "--list").stdout
    with shell(cloud) as screen:
        screen.expect("The previous run ended unexpectedly")


def test_a_connection_during_the_last_look_stops_the_sleep(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up(only() | {"SWARM_IDLE_WARNING": "5s"})
    warned = at(cloud.event("sleep.warned"))
    with socket.create_connection(("127.0.0.1", cloud.port)) as waiting:
        assert waiting.recv(4) == b"SSH-"
        # The warning ends while somebody is logging in: the sleep waits for the login.
        until(lambda: time.time() > warned + 5 + 1, "the end of the warning")
        assert not cloud.events("sleep.began")
        assert cloud.ssh("echo in").stdout == "in\n"
    assert cloud.event("sleep.cancelled")["because"].startswith("dev from 127.0.0.1: logged ")


def test_a_login_while_hooks_run_stops_the_sleep(make_cloud: CloudMaker) -> None:
    cloud = make_cloud()
    in_home(
        cloud,
        ".config/swarm/sleep.d/wait",
        '#!/bin/sh\nwhile [ ! -e "$HOME/go" ]; do sleep .1; done\n',
    )
    cloud.up(only() | {"SWARM_SLEEP_HOOK_TIMEOUT": "1m"})
    cloud.event("sleep.began")
    assert cloud.ssh("touch go").returncode == 0
    cloud.event("sleep.cancelled")
    assert cloud.standin.starts == 1


def test_hooks_run_as_their_owner_and_none_blocks_the_sleep(make_cloud: CloudMaker) -> None:
    cloud = make_cloud()
    says = '#!/bin/sh\necho "$(id -un) $SWARM_SLEEP_MODE $SWARM_SLEEP_REASON" >"$HOME/said"\n'
    in_home(cloud, ".config/swarm/sleep.d/10-says", says)
    in_home(cloud, ".config/swarm/sleep.d/20-fails", "#!/bin/sh\necho no space >&2\nexit 3\n")
    in_home(cloud, ".config/swarm/sleep.d/30-hangs", "#!/bin/sh\nsleep 600\n")
    in_home(cloud, ".config/swarm/sleep.d/25-broken", "#!/no/such/interpreter\n")
    in_home(cloud, ".config/swarm/sleep.d/not-executable", "x", mode=0o644)
    cloud.up({"SWARM_SLEEP_HOOK_TIMEOUT": "3s"})
    cloud.becomes(MachineState.STOPPED)
    home = cloud.machine.folder / "home" / cloud.user
    said = (home / "said").read_text()
    assert said.startswith("dev stop ")
    problems = {event["hook"]: event["problem"] for event in cloud.events("sleep.hook.failed")}
    assert problems["20-fails"] == "ended with status 3: no space"
    assert "was not done within" in problems["30-hangs"]
    assert "cannot be run" in problems["25-broken"]
    assert set(problems) == {"20-fails", "30-hangs", "25-broken"}


def test_a_folder_that_others_could_write_is_not_run_from(make_cloud: CloudMaker) -> None:
    cloud = make_cloud()
    hook = in_home(cloud, ".config/swarm/sleep.d/hook", '#!/bin/sh\ntouch "$HOME/ran"\n')
    hook.parent.chmod(0o777)
    cloud.up()
    assert "somebody else could have written it" in cloud.event("sleep.hook.failed")["problem"]


def test_a_broken_check_counts_as_active_and_is_told_once(make_cloud: CloudMaker) -> None:
    cloud = make_cloud()
    check = in_home(cloud, ".config/swarm/checks.d/hangs", "#!/bin/sh\nsleep 600\n")
    cloud.up(only("CHECK") | {"SWARM_IDLE_CHECK": "500ms"})
    failed = cloud.event("idle.signal.failed")
    assert failed["signal"] == "check"
    # All checks share half a second, of which starting this one took a part.
    assert re.search(r"was not done within 0\.\d+ s", failed["problem"])
    until(lambda: "cannot be read, so it counts" in cloud.agent("why").stdout, "the reason")
    cloud.stays_awake()
    assert len(cloud.events("idle.signal.failed")) == 1
    check.unlink()
    cloud.event("idle.signal.recovered", signal="check")
    cloud.becomes(MachineState.STOPPED)


def test_the_longest_time_awake_ends_what_is_always_on(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up(GRACE | {"SWARM_MAX_AWAKE": "20s"})
    until(lambda: cloud.agent("awake", "--for", "1h").returncode == 0, "a lease")
    with shell(cloud) as screen:
        screen.expect("sleeps in 2 s (awake for 20 s, the limit (SWARM_MAX_AWAKE))")
        cloud.becomes(MachineState.STOPPED)
    assert cloud.event("sleep.began")["awake"] >= 19.5


def test_a_timeout_changed_while_running_takes_effect_and_restarts_the_count(
    make_cloud: CloudMaker, tmp_path: Path
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('idle_timeout = "10m"\nidle_warning = "2s"\n')
    cloud = make_cloud()
    cloud.up({"SWARM_CONFIG": str(config)} | only(), soon={"SWARM_BOOT_GRACE": "1s"})
    sleeps = "sleeps in (10 min|9 min)"  # it may be some time ago
    until(lambda: re.search(sleeps, cloud.agent("why").stdout), "the timeout of the file")
    config.write_text('idle_timeout = "eventually"\n')
    assert "expected a duration" in cloud.event("settings.refused")["problem"]
    config.write_text('idle_timeout = "4s"\nidle_warning = "2s"\nlisten = "1"\n')
    changed = cloud.event("settings.changed")
    assert changed["applied"] == ["idle_timeout"]
    assert changed["waiting"] == []  # the environment names its address
    cloud.becomes(MachineState.STOPPED)
    assert at(cloud.event("sleep.began")) - at(changed) >= IDLE + WARNING - 0.1


def test_wall_clock_jumps_change_nothing(make_cloud: CloudMaker, tmp_path: Path) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    cloud = make_cloud().up_patiently(
        only()
        | {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_CACHE_DURATION": "1",  # without a cache the agent is five times slower
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    )
    cloud.hurry(60)  # a minute for the next three lines, on however busy a computer
    lease = 20.0
    before = time.monotonic()
    assert cloud.agent("awake", "--for", f"{lease:g}s").returncode == 0
    cloud.event("lease.taken")
    cloud.hurry()
    for jump in ("+1d", "-1d", "+0"):
        offset.write_text(f"{jump}\n")
        cloud.stays_awake(2)
    assert not cloud.events("sleep.resumed")
    # Neither the lease nor the idle time has changed by a day.
    cloud.becomes(MachineState.STOPPED)
    assert cloud.event("lease.ended")["reason"] == "over"
    assert time.monotonic() - before >= lease + IDLE + WARNING - 1.5


def test_suspend_keeps_sessions_and_processes_and_wakes_on_connect(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up({"SWARM_SLEEP_MODE": "suspend", "SWARM_WAKE_WINDOW": "1m"})
    with shell(cloud) as screen:
        screen.expect("$")
        screen.type("kept=alive\n")
        cloud.becomes(MachineState.SUSPENDED)
        resumed = cloud.standin.resumes
        assert cloud.ssh("echo served").stdout == "served\n"
        assert cloud.standin.resumes == resumed + 1
        until(lambda: len(cloud.events("sleep.resumed")) == resumed + 1, "that it was resumed")
        screen.type("echo still-$kept\n")
        screen.expect("still-alive")
    assert cloud.standin.starts == 1

    def reasons() -> list[str]:
        return [each["reason"] for each in cloud.events("wake.reason")]

    until(lambda: reasons()[-1:] == ["login"], "a login as the latest reason")
    # The idle time started again: it sleeps again, but not at once.
    until(lambda: len(cloud.events("sleep.began")) == resumed + 2, "the next sleep")
    between = at(cloud.events("sleep.began")[-1]) - at(cloud.events("sleep.resumed")[-1])
    assert between >= IDLE + WARNING - 0.1
    cloud.becomes(MachineState.SUSPENDED)


def test_what_replaced_a_link_of_the_home_is_on_the_volume_before_a_suspend(
    make_cloud: CloudMaker,
) -> None:
    """A suspended machine that is changed meanwhile starts cold, without notice."""
    cloud = make_cloud().up({"SWARM_SLEEP_MODE": "suspend"})
    replaced = cloud.ssh("echo '[user]' >new && mv new .gitconfig && test ! -L .gitconfig")
    assert replaced.returncode == 0, replaced
    cloud.becomes(MachineState.SUSPENDED)
    assert (cloud.machine.volume / ".home" / ".gitconfig").read_text() == "[user]\n"


def test_a_scan_of_a_suspended_machine_is_back_asleep_in_the_window(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up({"SWARM_SLEEP_MODE": "auto", "SWARM_IDLE_TIMEOUT": "10m"})
    cloud.sleep_now()
    cloud.becomes(MachineState.SUSPENDED)
    with socket.create_connection(("127.0.0.1", cloud.port)) as scanner:
        assert scanner.recv(4) == b"SSH-"
    cloud.event("wake.reason", reason="scan")
    cloud.becomes(MachineState.SUSPENDED)
    assert cloud.standin.starts == 1


class AnswersAfterwards(MachinesApi):
    """The answer comes only after the machine has resumed."""

    async def suspend(self, _: web.Request) -> web.Response:
        await self.standin.suspend()
        await self.standin.wait_for(MachineState.STARTED)
        return web.json_response({"ok": True})


def test_a_suspend_that_is_answered_after_the_resume(make_cloud: CloudMaker) -> None:
    cloud = make_cloud(api=AnswersAfterwards).up({"SWARM_SLEEP_MODE": "suspend"})
    cloud.becomes(MachineState.SUSPENDED)
    time.sleep(2)  # long enough to be distinguished from a hiccup
    assert cloud.ssh("echo served").stdout == "served\n"
    cloud.event("sleep.resumed")
    assert not cloud.events("sleep.suspend.failed")


class Refuses(MachinesApi):
    async def suspend(self, _: web.Request) -> web.Response:
        return web.json_response({"error": "machine has too much memory"}, status=412)


class Hangs(MachinesApi):
    async def suspend(self, _: web.Request) -> web.Response:
        await self.standin.wait_for(MachineState.STOPPED)
        return web.json_response({})


class Forgets(MachinesApi):
    async def suspend(self, _: web.Request) -> web.Response:
        return web.json_response({"ok": True})


@pytest.mark.parametrize(
    ("api", "reason"),
    [
        (Refuses, "status 412: machine has too much memory"),
        (Hangs, "did not answer within 20 s"),
        (Forgets, "the platform agreed, but nothing happened for 30 s"),
        (None, ".sock: "),  # nothing listens there
    ],
)
def test_a_suspend_that_fails_becomes_a_stop(
    make_cloud: CloudMaker, api: type[MachinesApi] | None, reason: str
) -> None:
    cloud = make_cloud(api=api).up({"SWARM_SLEEP_MODE": "suspend"})
    cloud.becomes(MachineState.STOPPED, timeout=90)
    assert reason in cloud.event("sleep.suspend.failed")["problem"]
    assert cloud.ssh("echo served").stdout == "served\n"


def test_off_refuses_to_sleep_by_hand(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up({"SWARM_SLEEP_MODE": "off"})
    until(lambda: cloud.agent("why").returncode == 0, "the control socket")
    assert "nothing would wake this machine" in cloud.agent("sleep").stderr
    assert "does not sleep by itself (SWARM_SLEEP_MODE is off)" in cloud.agent("why").stdout


@pytest.mark.attack
def test_sleep_by_hand_warns_and_no_lease_takes_it_back(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up(LATER | {"SWARM_IDLE_WARNING": "8s"})
    with shell(cloud) as screen:
        screen.expect("$")  # a login after the order would cancel it
        until(lambda: cloud.agent("sleep").returncode == 0, "the control socket")
        screen.expect("this machine sleeps in 8 s (asked for by hand)")
        assert cloud.agent("awake", "--for", "1h").returncode == 0
        cloud.becomes(MachineState.STOPPED)
    assert not cloud.events("sleep.cancelled")


@pytest.mark.attack
def test_neither_hooks_nor_checks_put_off_the_limit_or_an_order(make_cloud: CloudMaker) -> None:
    """A hook takes a lease each time; many checks are slow; the machine sleeps anyway."""
    cloud = make_cloud()
    lease = "#!/bin/sh\nswarm-agent awake --for 1s --name hook-$$\n"
    in_home(cloud, ".config/swarm/sleep.d/lease", lease)
    for number in range(20):
        in_home(cloud, f".config/swarm/checks.d/slow-{number}", "#!/bin/sh\nsleep 600\n")
    cloud.up({"SWARM_MAX_AWAKE": "20s"})
    cloud.becomes(MachineState.STOPPED)
    assert cloud.event("sleep.began")["reason"] == "limit"
    assert not cloud.events("sleep.cancelled")


def test_a_machine_that_fails_is_started_again_by_the_platform(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up(LATER)
    cloud.machine.signal(signal.SIGKILL)
    until(lambda: cloud.standin.starts == 2, "the restart")
    assert cloud.ssh("echo in").stdout == "in\n"


def test_a_used_up_budget_warns_and_shortens_the_timeout_but_cuts_no_session(
    make_cloud: CloudMaker,
) -> None:
    cloud = make_cloud().up(
        only()
        | GRACE
        | {
            "SWARM_BUDGET_HOURS": "0.001",
            "SWARM_IDLE_TIMEOUT": "10m",
            "SWARM_BUDGET_IDLE_TIMEOUT": "3s",
        }
    )
    with shell(cloud) as screen:
        screen.expect("$")
        until(lambda: float(cloud.metric("swarm_budget_used_ratio")) > 3, "the budget used up")
        assert not cloud.events("sleep.warned")
    cloud.becomes(MachineState.STOPPED)
    assert cloud.event("sleep.began")["because"] == "idle for 3 s"
    with shell(cloud) as screen:
        screen.expect("this month, of a budget of 0.001 h.")


def test_usage_estimates_costs_for_the_size_that_the_platform_reports(
    make_cloud: CloudMaker,
) -> None:
    cloud = make_cloud().up(LATER)
    until(lambda: cloud.agent("usage").returncode == 0, "the control socket")
    usage = cloud.agent("usage").stdout
    assert re.search(r"month +awake +about USD\n\d{4}-\d\d +\d+ s +0\.00", usage)
    assert "shared-cpu-1x with 1024 MB, prices of 20" in usage


def test_wakes_and_sleeps_are_counted_over_all_lives(make_cloud: CloudMaker) -> None:
    cloud = make_cloud().up_patiently({})
    cloud.hurry()
    cloud.becomes(MachineState.STOPPED)
    cloud.be_patient()
    assert cloud.ssh("true").returncode == 0

    def counted() -> bool:
        slept = cloud.metric('swarm_sleeps_total{mode="stop",reason="idle"}')
        woken = cloud.metric('swarm_wakes_total{reason="login"}')
        return (slept, woken) == ("1.0", "1.0")

    until(counted, "the sleep of the life before and this wake-up")
