"""Services in a real machine: real programs and real signals, seen from outside."""

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.claims import free_port
from tests.services import Services
from tests.support import Box, until

pytestmark = pytest.mark.root


def host_pid(box: Box, pid: int) -> int:
    """The host's process id of a process inside the machine."""
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            text = path.read_text()
        except OSError:
            continue
        ids = next(line for line in text.splitlines() if line.startswith("NSpid")).split()[1:]
        if len(ids) == 2 and int(ids[1]) == pid and under(int(path.parent.name), box.machine.init):
            return int(path.parent.name)
    raise AssertionError(f"no process {pid} in the machine")


def under(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def test_user_folder_environment_and_secrets(services: Services) -> None:
    services.boot(
        """
        [service.env]
        command = ["sh", "-c", "id -un; id -gn; pwd; env"]
        cwd = "/tmp"
        env = {COLOUR = "blue"}
        secrets = ["TOKEN"]
        oneshot = true
        """,
        {"TOKEN": "sesame", "OTHER": "hidden"},
    )
    services.becomes("env", "done")
    said = services.box.agent("logs", "env").stdout
    for line in ("dev", "/tmp", "COLOUR=blue", "TOKEN=sesame", "HOME=/home/dev", "USER=dev"):
        assert f" {line}\n" in said
    assert "hidden" not in said
    assert "SSH_AUTHORIZED_KEYS" not in said
    assert "sesame" not in Path(f"/proc/{services.box.machine.init}/cmdline").read_text()


def test_services_of_the_login_account_have_the_sessions_environment(services: Services) -> None:
    services.boot(
        """
        [service.mine]
        command = "env"
        oneshot = true

        [service.roots]
        command = "env"
        oneshot = true
        user = "root"
        """,
        {"ANTHROPIC_API_KEY": "sesame", "FLY_REGION": "ams"},
    )
    services.becomes("mine", "done")
    services.becomes("roots", "done")
    assert "ANTHROPIC_API_KEY=sesame" in services.box.agent("logs", "mine").stdout
    assert "FLY_REGION=ams" in services.box.agent("logs", "mine").stdout
    assert "sesame" not in services.box.agent("logs", "roots").stdout


def test_stdout_and_stderr_are_told_apart_in_the_log(services: Services) -> None:
    services.boot('[service.talk]\ncommand = ["sh", "-c", "echo out; echo err >&2"]\n')
    services.becomes("talk", "done")
    assert services.box.event("service.said", line="out")["stream"] == "stdout"
    assert services.box.event("service.said", line="err")["stream"] == "stderr"


def test_a_service_that_dies_is_started_again_with_backoff_and_then_failed(
    services: Services,
) -> None:
    services.boot(
        """
        [service.dies]
        command = ["sh", "-c", "echo last words; exit 3"]
        backoff = "50ms"
        max_restarts = 3
        """
    )
    entry = services.becomes("dies", "failed")
    assert entry["restarts"] == 3
    assert entry["detail"] == "ended with status 3, after 3 restarts in a row"
    assert "last words" in services.box.event("service.failed")["said"]
    delays = [event["retry_in"] for event in services.box.events("service.backoff")]
    assert delays == [0.05, 0.1, 0.2]
    assert services.box.ssh("echo in").stdout == "in\n"


def test_kill_storms_are_survived(services: Services) -> None:
    services.boot(
        "".join(
            f'[service.s{n}]\ncommand = "sleep 1000"\nbackoff = "10ms"\nmax_restarts = 1000\n'
            for n in range(10)
        )
    )
    for _ in range(5):
        running = until(
            lambda: [e for e in services.all().values() if e["state"] == "running"], "services"
        )
        for entry in running:
            subprocess.run(
                [
                    "nsenter",
                    "-t",
                    str(services.box.machine.init),
                    "-p",
                    "-m",
                    "kill",
                    "-9",
                    str(entry["pid"]),
                ],
                check=False,
            )
    until(lambda: all(e["state"] == "running" for e in services.all().values()), "all again")
    assert sum(entry["restarts"] for entry in services.all().values()) >= 20
    assert services.box.ssh("echo in").stdout == "in\n"


@pytest.mark.parametrize(
    ("ready", "make"),
    [
        ("{tcp = PORT}", "exec python3 -m http.server PORT --bind 127.0.0.1"),
        ('{http = "http://127.0.0.1:PORT/"}', "exec python3 -m http.server PORT --bind 127.0.0.1"),
        ('{file = "/tmp/ready-PORT"}', "touch /tmp/ready-PORT; sleep 1000"),
        ('{command = "test -e /tmp/ready-PORT"}', "touch /tmp/ready-PORT; sleep 1000"),
        (
            "{notify = true}",
            "python3 -c 'import os,socket; s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM);"
            's.sendto(b"READY=1",os.environ["NOTIFY_SOCKET"])\'; sleep 1000',
        ),
    ],
)
def test_readiness(services: Services, ready: str, make: str) -> None:
    """A service is ready when its probe says so, and dependent services start after that."""
    port = str(free_port())
    Path(f"/tmp/ready-{port}").unlink(missing_ok=True)  # from an earlier run with the same port
    services.boot(
        f"""
        [service.slow]
        command = ["sh", "-c", '''sleep 0.3; {make.replace("PORT", port)}''']
        ready = {ready.replace("PORT", port)}

        [service.next]
        command = "sleep 1000"
        requires = ["slow"]
        """
    )
    services.becomes("next", "running")
    ready_event = services.box.event("service.ready", service="slow")
    assert ready_event["seconds"] >= 0.3
    started = services.box.event("service.started", service="next")
    assert started["timestamp"] >= ready_event["timestamp"]


def test_not_ready_in_time_is_a_failure_that_says_what_was_missing(services: Services) -> None:
    port = free_port()
    services.boot(
        f"""
        [service.deaf]
        command = "sleep 1000"
        ready = {{tcp = {port}}}
        ready_timeout = "300ms"
        restart = "never"
        """
    )
    detail = services.becomes("deaf", "failed")["detail"]
    assert detail == f"not ready within 0.3 s: port {port} does not answer"


def test_health_checks_restart_a_service_that_hangs(services: Services, tmp_path: Path) -> None:
    well = tmp_path / "well"
    well.touch()
    services.boot(
        f"""
        [service.web]
        user = "root"
        command = "sleep 1000"
        health = {{command = "test -e {well}", interval = "100ms", failures = 2}}
        backoff = "50ms"
        stable = "1ms"
        """
    )
    first = services.becomes("web", "running")
    well.unlink()
    told = services.box.event("service.backoff", service="web")
    assert told["because"].startswith("unhealthy 2 times in a row")
    well.touch()
    until(lambda: services.becomes("web", "running")["pid"] != first["pid"], "a new process")


def test_fifty_services_start_in_order_and_stop_in_reverse(services: Services) -> None:
    """A binary tree: each follows its parent."""
    text = ""
    for n in range(50):
        after = f'requires = ["s{(n - 1) // 2}"]\n' if n else ""
        text += f'[service.s{n}]\ncommand = "sleep 1000"\n{after}'
    services.boot(text)
    until(lambda: all(e["state"] == "running" for e in services.all().values()), "all running")
    until(lambda: len(services.box.events("service.started")) == 50, "all of them in the log")
    order = [event["service"] for event in services.box.events("service.started")]
    assert sorted(order) == sorted(f"s{n}" for n in range(50))
    for n in range(1, 50):
        assert order.index(f"s{n}") > order.index(f"s{(n - 1) // 2}")
    assert services.box.stop() == 0
    stopped = [event["service"] for event in services.box.events("service.stopped")]
    assert sorted(stopped) == sorted(order)
    for n in range(1, 50):
        assert stopped.index(f"s{n}") < stopped.index(f"s{(n - 1) // 2}")


def test_start_stop_restart_by_hand(services: Services) -> None:
    services.boot(
        """
        [service.db]
        command = "sleep 1000"
        autostart = false

        [service.app]
        command = "sleep 1000"
        requires = ["db"]
        autostart = false
        """
    )
    box = services.box
    assert services.all()["app"]["state"] == "inactive"
    assert box.agent("start", "app").returncode == 0
    services.becomes("app", "running")
    pids = {name: entry["pid"] for name, entry in services.all().items()}
    assert box.agent("restart", "app").returncode == 0
    app = services.becomes("app", "running")
    assert app["pid"] != pids["app"]
    assert services.all()["db"]["pid"] == pids["db"]
    assert box.agent("stop", "db").stdout == "db is inactive\n"
    assert services.all()["app"]["state"] == "inactive"
    assert "there is no service 'nobody'" in box.agent("start", "nobody").stderr
    denied = box.ssh("swarm-agent stop app")
    assert "only root may do this" in denied.stderr


def test_a_stubborn_service_is_killed_with_its_whole_group(services: Services) -> None:
    services.boot(
        """
        [service.stubborn]
        command = ["sh", "-c", "trap '' TERM; sleep 1234 & while :; do sleep 0.1; done"]
        stop_timeout = "300ms"
        """
    )
    entry = services.becomes("stubborn", "running")
    outside = host_pid(services.box, entry["pid"])
    until(lambda: len(_group(outside)) >= 2, "its child")
    began = time.monotonic()
    assert services.box.agent("stop", "stubborn").returncode == 0
    assert time.monotonic() - began >= 0.3
    until(lambda: not _group(outside), "the group's end")


def _group(leader: int) -> list[int]:
    """The processes of this process group."""
    found = []
    for name in os.listdir("/proc"):
        with suppress(ValueError, ProcessLookupError):
            if os.getpgid(int(name)) == leader:
                found.append(int(name))
    return found


def test_a_grandchild_that_holds_the_pipe_does_not_delay_a_stop(services: Services) -> None:
    services.boot('[service.leaky]\ncommand = ["sh", "-c", "setsid sleep 1000 & sleep 1000"]\n')
    services.becomes("leaky", "running")
    assert services.box.agent("stop", "leaky").stdout == "leaky is inactive\n"


def test_stop_signal_and_limits(services: Services) -> None:
    services.boot(
        '''
        [service.limits]
        command = ["sh", "-c", """
            trap 'echo got INT; exit 0' INT
            ulimit -n; nice; cat /proc/self/oom_score_adj
            while :; do sleep 0.05; done"""]
        stop_signal = "SIGINT"
        nofile = 333
        nice = -3
        oom_score_adj = 250
        '''
    )
    services.becomes("limits", "running")
    until(lambda: "250" in services.box.agent("logs", "limits").stdout, "what it says")
    assert services.box.agent("stop", "limits").returncode == 0
    texts = [
        line.split(maxsplit=1)[1]
        for line in services.box.agent("logs", "limits").stdout.splitlines()
    ]
    assert texts == ["333", "-3", "250", "got INT"]


def test_live_changes_touch_only_what_changed(services: Services) -> None:
    services.boot(
        '[service.same]\ncommand = "sleep 1000"\n[service.changes]\ncommand = "sleep 1000"\n'
        '[service.goes]\ncommand = "sleep 1000"\n'
    )
    for name in ("same", "changes", "goes"):
        services.becomes(name, "running")
    before = services.all()
    services.write(
        '[service.same]\ncommand = "sleep 1000"\n[service.changes]\ncommand = "sleep 2000"\n'
        '[service.comes]\ncommand = "sleep 1000"\n'
    )
    change = services.box.event("services.changed", changed=["changes"])
    assert (change["added"], change["removed"]) == (["comes"], ["goes"])
    services.becomes("comes", "running")
    after = services.all()
    assert after["same"]["pid"] == before["same"]["pid"]
    assert services.becomes("changes", "running")["pid"] != before["changes"]["pid"]
    assert "goes" not in after
    services.write('[service.same]\ncommand = "sleep 1000"\nrestrt = "never"\n')
    refused = services.box.event("services.refused")
    assert (
        "[service.same] restrt is not a key of a service (did you mean restart?)"
        in refused["reason"]
    )
    assert services.all()["same"]["pid"] == before["same"]["pid"]
    assert "not used: " in services.box.agent("services").stdout


def test_the_death_of_an_important_service_ends_the_container(services: Services) -> None:
    services.write(
        '[service.vital]\ncommand = ["sh", "-c", "exit 9"]\nrestart = "never"\n'
        'on_failure = "shutdown"\n'
    )
    services.box.start({"SWARM_SERVICES_DIR": str(services.folder)})
    assert services.box.machine.wait(30) == 9
    assert services.box.event("agent.stopping")["reason"] == "service vital failed"


def test_logs_can_be_followed(services: Services) -> None:
    services.boot(
        '[service.ticks]\ncommand = ["sh", "-c", "while :; do echo tick; sleep 0.1; done"]\n'
    )
    command, environ = services.box.agent_command("logs", "-f", "ticks")
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, text=True) as following:
        assert following.stdout is not None
        lines = [following.stdout.readline() for _ in range(5)]
        following.kill()
    assert all(line.endswith(" tick\n") for line in lines)


def test_a_flooding_service_costs_nobody_else_anything(services: Services) -> None:
    services.boot(
        """
        [service.flood]
        command = "yes 0123456789abcdef0123456789abcdef"
        nice = 19

        [service.quiet]
        command = ["sh", "-c", "while :; do echo here; sleep 0.2; done"]
        """
    )
    services.box.event("service.output.lost", service="flood")
    for _ in range(5):
        assert services.box.ssh("echo in").stdout == "in\n"
    until(lambda: len(services.box.events("service.said")) > 20, "lines")
    assert services.box.event("service.said", service="quiet")["line"] == "here"
    assert services.all()["flood"]["state"] == "running"


def test_services_are_in_status_and_metrics(services: Services) -> None:
    services.boot('[service.one]\ncommand = "sleep 1000"\n')
    services.becomes("one", "running")
    assert "one  running" in services.box.agent("status").stdout
    until(lambda: services.box.metric('swarm_service_up{service="one"}') == "1.0", "the metric")
    assert services.box.metric('swarm_service_restarts_total{service="one"}') == "0.0"
