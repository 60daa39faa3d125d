"""Metrics, health, status, audit, usage and the page of a real agent, read by real programs."""

import contextlib
import json
import os
import pty
import re
import shlex
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.observe import reference
from deploy.grafana import make as grafana
from tests.claims import free_port
from tests.conftest import BoxMaker
from tests.support import Box, Screen, ready, until
from tests.system.test_gate import boot as boot_proxied
from tests.system.test_gate import garbage

DOCS = Path(__file__).parents[2] / "docs"
GRAFANA = Path(grafana.__file__).parent


def serves_http(box: Box) -> bool:
    try:
        return box.fetch("/healthz")[0] in (200, 503)
    except OSError:
        return False


def metric(box: Box, name: str) -> float:
    """The value of one series now; an answer may be a second old."""
    time.sleep(1.1)
    return float(box.metric(name))


@pytest.fixture
def seen(make_box: BoxMaker) -> Box:
    """A machine whose HTTP answers."""
    box = make_box().boot()
    until(lambda: serves_http(box), "HTTP")
    return box


@contextmanager
def session(box: Box) -> Iterator["subprocess.Popen[bytes]"]:
    """A login that stays until the block ends."""
    command = box.ssh_command("echo in; read -r x")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()
        yield client
        client.communicate(b"\n")


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_metrics_are_clean_for_promtool_or_openmetrics(seen: Box, accept: str) -> None:
    status, headers, body = seen.fetch("/metrics", Accept=accept)
    assert status == 200
    assert headers["Content-Type"].startswith(accept.split(";", maxsplit=1)[0])
    if accept == "text/plain":
        check = subprocess.run(
            ["promtool", "check", "metrics"],
            input=body,
            text=True,
            capture_output=True,
            check=False,
        )
        assert (check.returncode, check.stdout, check.stderr) == (0, "", "")
    else:
        assert body.endswith("# EOF\n")


def test_what_happens_is_counted(make_box: BoxMaker) -> None:
    box = boot_proxied(make_box())
    until(lambda: serves_http(box), "HTTP")
    garbage(box)
    box.event("ssh.connection.closed")
    assert metric(box, 'swarm_authentications_total{result="probe"}') == 1
    assert metric(box, "swarm_strikes_total") == 1
    assert metric(box, 'swarm_connections_refused_total{reason="bad_header"}') == 0
    with socket.create_connection(("127.0.0.1", box.port)) as bad:
        bad.sendall(b"PROXY nonsense\r\n")
        bad.recv(1)
    assert metric(box, 'swarm_connections_refused_total{reason="bad_header"}') == 1
    assert box.agent("ban", "192.0.2.1").returncode == 0
    assert metric(box, "swarm_bans") == 1
    assert metric(box, "swarm_bans_started_total") == 1


def test_sessions_are_counted_with_their_bytes(seen: Box) -> None:
    assert metric(seen, "swarm_sessions") == 0
    with session(seen):
        assert metric(seen, "swarm_sessions") == 1
        assert metric(seen, "swarm_sessions_opened_total") == 1
    seen.event("ssh.session.closed")
    assert metric(seen, "swarm_session_duration_seconds_count") == 1
    assert metric(seen, "swarm_session_received_bytes_total") > 1000


def test_the_login_before_the_metrics_were_there_is_counted(make_box: BoxMaker) -> None:
    box = make_box().start()
    until(lambda: box.ssh("true").returncode == 0, "a login")
    until(lambda: serves_http(box), "HTTP")
    assert metric(box, "swarm_sessions_opened_total") >= 1
    assert metric(box, 'swarm_boot_phase_seconds{phase="listener"}') > 0


def test_health_says_what_is_wrong(make_box: BoxMaker) -> None:
    box = make_box().start({"SSH_AUTHORIZED_KEYS": ""})
    until(lambda: serves_http(box), "HTTP")
    status, _, body = box.fetch("/healthz")
    assert status == 503
    assert "no usable key" in json.loads(body)["problems"]["keys"]


def test_http_is_read_only_and_hardened(seen: Box) -> None:
    for method in ("POST", "PUT", "DELETE"):
        url = f"http://127.0.0.1:{seen.http_port}/"
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10)
    headers = seen.fetch("/")[1]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Server"] == "swarm-agent"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Forwarded-For": "198.51.100.1"},
        {"Fly-Client-IP": "198.51.100.1"},
        {"Host": "rebound.example.com"},
    ],
)
def test_the_page_names_nobody_to_strangers(seen: Box, headers: dict[str, str]) -> None:
    with session(seen):
        body = seen.fetch("/status.json", **headers)[2]
        names = [seen.key.path.name, seen.user, "127.0.0.1"]
        report = json.loads(body)["status"]
        told = json.dumps([report["user"], report["sessions"], report["keys"], report["idle"]])
        if headers:
            assert not [name for name in names if f'"{name}"' in told]
            assert len(report["sessions"]) == 1
        else:
            assert [name for name in names if f'"{name}"' in told] == names


def test_no_name_is_in_any_metric(seen: Box) -> None:
    with session(seen):
        body = seen.fetch("/metrics")[2]
    names = (f'"{seen.key.path.name}"', seen.key.fingerprint, "127.0.0.1", f'"{seen.user}"')
    for name in names:
        assert name not in body


def test_status_sessions_kick_and_history(seen: Box) -> None:
    with session(seen) as client:
        text = until(lambda: seen.agent("status").stdout, "the status")
        assert re.search(rf"{seen.user} +ann +127\.0\.0\.1", text)
        assert "bans    0" in text
        report = json.loads(seen.agent("status", "--json").stdout)
        name = report["sessions"][0]["id"]
        assert seen.agent("kick", name).stdout == f"session {name} ends\n"
        client.wait(30)
    closed = seen.event("ssh.session.closed")
    assert "there is no session" in seen.agent("kick", name).stderr

    def listed() -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = json.loads(seen.agent("history", "--json").stdout)
        return [entry for entry in entries if entry["id"] == name and entry["closed"]]

    entry = until(listed, "the session in the history")[0]
    assert entry["key"] == "ann"
    assert entry["fingerprint"] == seen.key.fingerprint
    assert entry["bytes_in"] > 0
    assert entry["reason"] == closed["reason"]


def test_history_and_time_awake_survive_a_kill(make_box: BoxMaker) -> None:
    box = make_box().boot()
    assert box.ssh("true").returncode == 0
    until(lambda: "logged out" in box.agent("history").stdout, "the history")
    assert box.stop() == 0
    box.boot()
    until(lambda: serves_http(box), "HTTP")
    assert "logged out" in box.agent("history").stdout
    first = metric(box, "swarm_awake_seconds_total")
    box.machine.kill()
    box.boot()
    until(lambda: serves_http(box), "HTTP")
    assert metric(box, "swarm_awake_seconds_total") > first / 2
    assert re.search(r"\d{4}-\d\d-\d\d +\d+ s", box.agent("usage").stdout)


def test_a_bad_since_is_a_clear_error(seen: Box) -> None:
    result = seen.agent("history", "--since", "yesterday")
    assert result.returncode == 2
    assert "'yesterday': expected a duration" in result.stderr


def test_status_watch_refreshes_in_place(seen: Box) -> None:
    ready(seen)
    command, environ = seen.agent_command("status", "--watch", "0.1")
    pid, descriptor = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, environ)
    screen = Screen(descriptor)
    for _ in range(3):
        screen.seen = ""
        screen.expect("\x1b[H")
        screen.expect("awake since")
        screen.expect("\x1b[J")
    screen.type("\x03")
    assert os.waitpid(pid, 0)[1] != 0
    os.close(descriptor)


@pytest.mark.root
def test_connections_to_the_control_socket_cost_neither_ssh_nor_root(make_box: BoxMaker) -> None:
    """The login account opens as many as it can: its own oldest ones are closed."""
    box = ready(make_box().boot(before="ulimit -n 400"))
    hold = (
        "import os, socket, time; held = []; os.fork(); os.fork()\n"
        "for n in range(200):\n"
        "  s = socket.socket(socket.AF_UNIX); s.connect('/run/swarm/agent.sock'); held.append(s)\n"
        "print('held', flush=True); time.sleep(1000)"
    )
    command = box.ssh_command(f"python3 -c {shlex.quote(hold)}")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holding:
        assert holding.stdout is not None
        assert [holding.stdout.readline() for _ in range(4)] == [b"held\n"] * 4
        assert box.agent("status").returncode == 0
        assert box.ssh("swarm-agent status").returncode == 0
        until(lambda: len(os.listdir(f"/proc/{box.machine.init}/fd")) < 150, "few descriptors")
        holding.kill()


def test_a_crashed_http_part_restarts_and_ssh_goes_on(make_box: BoxMaker) -> None:
    box = make_box()
    with socket.create_server(("127.0.0.1", box.http_port)):
        box.boot()
        failed = box.event("agent.part.failed", part="http")
        assert "cannot listen on" in failed["problem"]
        assert box.ssh("echo in").stdout == "in\n"
    until(lambda: serves_http(box), "HTTP after the restart")
    assert metric(box, "swarm_parts_failed_total") >= 1


def test_more_connections_than_the_limit_push_out_the_oldest(seen: Box) -> None:
    slow = [socket.create_connection(("127.0.0.1", seen.http_port)) for _ in range(200)]
    assert seen.fetch("/metrics")[0] == 200
    assert seen.ssh("echo in").stdout == "in\n"
    slow[0].settimeout(10)
    with contextlib.suppress(ConnectionResetError):
        assert slow[0].recv(1) == b""
    for connection in slow:
        connection.close()


def test_a_flood_is_summed_up(make_box: BoxMaker) -> None:
    box = boot_proxied(make_box(), {"SWARM_MAXRETRY": "1000"})
    until(lambda: serves_http(box), "HTTP")
    for number in range(70):
        garbage(box, f"203.0.113.{number}")
    assert metric(box, 'swarm_authentications_total{result="probe"}') == 70
    assert box.stop() == 0
    assert len(box.events("ssh.connection.closed")) == 60
    assert box.event("log.summed")["lines"] == 10


def test_the_references_in_docs_are_the_code() -> None:
    assert (DOCS / "metrics.md").read_text() == reference.metrics(), "run make docs"
    assert (DOCS / "events.md").read_text() == reference.event_page(), "run make docs"


def test_dashboard_and_alerts_use_only_metrics_that_exist() -> None:
    page = (GRAFANA / "dashboard.json").read_text()
    assert page == grafana.dashboard() + "\n", "run make docs"
    rules = (GRAFANA / "alerts.yml").read_text()
    used = set(re.findall(r"\bswarm_\w+", page.replace("label_values", "") + rules))
    assert used <= reference.metric_names()


def test_alert_rules_are_sound() -> None:
    path = str(GRAFANA / "alerts.yml")
    done = subprocess.run(
        ["promtool", "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


OVERDUE = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: swarm_checkpoint_overdue{{app="a"}}
        values: 0x60 1x60
      - series: swarm_checkpoint_upload_pending{{app="a"}}
        values: 1x1500
    alert_rule_test:
      - {{eval_time: 70m, alertname: SwarmNoCheckpoint, exp_alerts: []}}
      - eval_time: 72m
        alertname: SwarmNoCheckpoint
        exp_alerts:
          - exp_labels: {{severity: warning, app: a}}
            exp_annotations:
              summary: a is in use, but has had no checkpoint for a day
              description: "`swarm-agent checkpoints` in the machine says why."
      - {{eval_time: 23h59m, alertname: SwarmCheckpointsNotCopied, exp_alerts: []}}
      - eval_time: 24h1m
        alertname: SwarmCheckpointsNotCopied
        exp_alerts:
          - exp_labels: {{severity: warning, app: a}}
            exp_annotations:
              summary: checkpoints of a cannot be copied away from it
              description: "`swarm-agent checkpoints` in the machine says why."
"""


def test_a_day_without_a_checkpoint_and_without_a_copy_raises_alerts(tmp_path: Path) -> None:
    path = tmp_path / "test.yml"
    path.write_text(OVERDUE.format(rules=GRAFANA / "alerts.yml"))
    done = subprocess.run(
        ["promtool", "test", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[int]:
    """A real Prometheus that scrapes the agent every second, with our alert rules; its port."""
    port = free_port()
    folder.mkdir()
    shutil.copy(GRAFANA / "alerts.yml", folder)
    (folder / "prometheus.yml").write_text(
        f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [alerts.yml]\n"
        "scrape_configs:\n  - job_name: swarm\n    static_configs:\n"
        f"      - {{targets: ['127.0.0.1:{target}'], labels: {{app: test}}}}\n"
    )
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as server:
        try:
            yield port
        finally:
            server.terminate()


def query(port: int, expression: str) -> list[Any]:
    """The result of an instant query; empty while the server is not up."""
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            result: list[Any] = json.load(answer)["data"]["result"]
            return result
    except OSError:
        return []


def test_a_real_prometheus_scrapes_under_load_without_a_failure(seen: Box, tmp_path: Path) -> None:
    with prometheus(tmp_path / "prometheus", seen.http_port) as port:
        until(lambda: query(port, "up == 1"), "the first scrape")
        end = time.monotonic() + 10
        logins = 0
        while time.monotonic() < end:
            assert seen.ssh("true").returncode == 0
            logins += 1
        until(
            lambda: query(port, f"swarm_sessions_opened_total >= {logins}"),
            "the logins in Prometheus",
        )
        assert query(port, "min_over_time(up[30s])")[0]["value"][1] == "1"
        assert query(port, "count(count_over_time(up[30s])) > 0")
        for panel in grafana.PANELS:
            for expression in panel.queries.values():
                filled = expression.replace("$app", "test")
                url = f"http://127.0.0.1:{port}/api/v1/query?"
                with urllib.request.urlopen(
                    url + urllib.parse.urlencode({"query": filled})
                ) as answer:
                    assert json.load(answer)["status"] == "success"


def test_the_alert_for_missing_keys_fires(make_box: BoxMaker, tmp_path: Path) -> None:
    box = make_box().start({"SSH_AUTHORIZED_KEYS": ""})
    until(lambda: serves_http(box), "HTTP")
    with prometheus(tmp_path / "prometheus", box.http_port) as port:
        until(
            lambda: query(port, 'ALERTS{alertname="SwarmNoKeys", alertstate="pending"}'),
            "the alert",
        )
