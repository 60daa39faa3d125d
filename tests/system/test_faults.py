"""Faults: SSH is the last thing to fail, stored data survives, and the status shows each fault.

Beside these: a damaged host key, a full and a read-only volume at boot (test_boot.py), a damaged
database and full volume (test_gate.py), descriptors used up and a hostile user (test_security.py),
clock jumps and a Machines API that refuses, hangs or forgets (test_sleep.py), errors at the top of
the agent (test_reexecution.py), no name server (test_egress.py).
"""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agent.init.proctree import descendants
from tests.conftest import BoxMaker
from tests.limited import Limited
from tests.support import Box, Client, ready, until

pytestmark = pytest.mark.root


def status(box: Box) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(box.agent("status", "--json").stdout)
    return report


def notices(box: Box) -> dict[str, str]:
    return {each["part"]: each["says"] for each in status(box)["notices"]}


def sshds(box: Box) -> list[int]:
    """The processes of all sshds, as the host numbers them."""
    return [each.pid for each in descendants(box.machine.init) if "sshd" in each.command]


def logs_in(box: Box) -> bool:
    return box.ssh("echo in").stdout == "in\n"


def inside(box: Box, *command: str) -> None:
    """Run a command as root in the machine."""
    subprocess.run(["nsenter", "-t", str(box.machine.init), "-m", "-p", *command], check=True)


def test_a_killed_sshd_ends_its_own_session_only(box: Box, clients: list[Client]) -> None:
    ready(box)
    clients += [Client(box) for _ in range(6)]
    sessions = json.loads(box.agent("sessions", "--json").stdout)
    for session in sessions[::2]:
        inside(box, "kill", "-9", str(session["pid"]))
    for session in sessions[::2]:
        closed = box.event("ssh.session.closed", session=session["id"])
        assert closed["reason"] == "sshd ended by signal 9"
    left = {session["id"] for session in sessions[1::2]}
    assert {each["id"] for each in json.loads(box.agent("sessions", "--json").stdout)} == left

    def alive(client: Client) -> bool:
        try:
            return client.says("still here") == "still here\n"
        except BrokenPipeError:
            return False

    assert sum(map(alive, clients)) == 3
    assert logs_in(box)
    until(lambda: box.metric("swarm_sessions") == "3.0", "the metric")


def test_sshds_killed_at_random(box: Box, clients: list[Client]) -> None:
    """Whichever of its processes is killed, monitor or unprivileged, the next login works."""
    ready(box)
    clients += [Client(box) for _ in range(3)]
    random = Random(4)
    for _ in range(15):
        login = subprocess.Popen(box.ssh_command("sleep 0.2"), stderr=subprocess.DEVNULL)
        found = until(lambda: sshds(box), "an sshd")
        with suppress(ProcessLookupError):
            os.kill(random.choice(found), signal.SIGKILL)
        login.wait(30)
    for client in clients:
        client.process.kill()
    assert logs_in(box)
    until(lambda: json.loads(box.agent("sessions", "--json").stdout) == [], "no session left")
    assert not sshds(box)


CRASHING = f"""#!{sys.executable}
# The agent, with parts that crash at their first start.
import sys
sys.argv[0] = "swarm-agent"
if sys.argv[1:2] == ["run"]:
    import importlib
    for where in {{places!r}}:
        module, owner, name = where.split()
        owner = getattr(importlib.import_module(module), owner)
        def crashing(self, *words, _was=getattr(owner, name), _times=[]):
            if len(_times) < 1:
                _times.append(1)
                raise RuntimeError("built in")
            return _was(self, *words)
        setattr(owner, name, crashing)
from agent.__main__ import main
main()
"""

PARTS = {
    "http": "agent.observe.http Http serve",
    "control socket": "agent.observe.control Control serve",
    "watch": "agent.idle.watch Watch run",
    "state": "agent.state.memory Memory run",
    "services": "agent.services.supervisor Supervisor follow",
    "lag": "agent.observe.lag Lag run",
    "files": "agent.follow Files follow",
}


def test_parts_that_crash_are_started_again_and_shown(make_box: BoxMaker, tmp_path: Path) -> None:
    program = tmp_path / "crashing"
    program.write_text(CRASHING.format(places=list(PARTS.values())))
    program.chmod(0o755)
    box = make_box()
    box.machine.program = str(program)
    box.boot()
    assert logs_in(box)
    for part in PARTS:
        assert box.event("agent.part.failed", part=part)["problem"] == "RuntimeError: built in"
    ready(box)
    until(lambda: set(PARTS) <= set(notices(box)), "each in the status")
    assert "crashed and was restarted" in box.agent("status").stdout
    until(lambda: box.metric("swarm_parts_failed_total") == f"{len(PARTS)}.0", "the metric")
    assert box.agent("services").returncode == 0
    assert box.agent("why").returncode == 0
    assert logs_in(box)


@pytest.mark.parametrize("fault", ["read-only", "full"])
def test_a_volume_that_recovers_has_everything(make_box: BoxMaker, fault: str) -> None:
    box = make_box()
    mount = "mount -t tmpfs -o size=4m tmpfs /mnt"
    box.boot(before=mount)
    ready(box)
    assert logs_in(box)
    box.agent("ban", "203.0.113.1")
    if fault == "read-only":
        # A file open for writing would prevent it.
        until(lambda: subprocess.run(
            ["nsenter", "-t", str(box.machine.init), "-m", "mount", "-o", "remount,ro", "/mnt"],
            check=False, capture_output=True,
        ).returncode == 0, "a read-only volume")  # fmt: skip
    else:
        inside(box, "sh", "-c", "head -c 8000000 /dev/zero >/mnt/full 2>/dev/null; true")
    assert box.agent("ban", "203.0.113.2").returncode == 0
    assert box.agent("awake", "--for", "2h", "--name", "work").returncode == 0
    box.event("state.not_kept")
    assert "data could not be written" in notices(box)["volume"]
    until(lambda: float(box.metric("swarm_notices")) >= 1, "the metric")
    assert logs_in(box)
    if fault == "read-only":
        inside(box, "mount", "-o", "remount,rw", "/mnt")
    else:
        inside(box, "rm", "/mnt/full")
    box.agent("ban", "203.0.113.3")  # the next change also writes the others
    box.event("state.kept")
    until(lambda: "volume" not in notices(box), "nothing is wrong any more")
    until(lambda: "work" in kept(box, "leases"), "the lease on the volume", 45)
    until(lambda: kept(box, "bans").count("203.0.113.") == 3, "all bans in the list", 90)


def test_damaged_pages_are_set_aside(box: Box) -> None:
    ready(box)
    box.agent("ban", "203.0.113.1")
    folder = box.machine.volume / ".swarm"
    until(lambda: bans_in(folder / "state.db"), "the ban in the database")
    box.machine.kill()
    for name in ("life", "leases", "bans"):
        (folder / name).write_bytes(b"\xff damaged \n")
    box.boot()
    ready(box)
    assert logs_in(box)
    until(lambda: len(box.events("state.replaced")) == 3, "three lines in the log")
    for name in ("life", "leases", "bans"):
        (kept_as,) = folder.glob(f"{name}.refused-*")
        assert kept_as.read_bytes() == b"\xff damaged \n"
    until(lambda: "203.0.113.1" in box.agent("bans").stdout, "what the database knows")


def bans_in(database: Path) -> int:
    """The number of stored bans."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        return int(opened.execute("SELECT count(*) FROM bans").fetchone()[0])


def kept(box: Box, name: str) -> str:
    """The present content of a page of text on the volume."""
    path = Path(f"/proc/{box.machine.init}/root/mnt/.swarm/{name}")
    return path.read_text() if path.exists() else ""


@pytest.mark.xdist_group("heavy")
@pytest.mark.attack
def test_no_process_can_be_started_for_a_while(
    box: Box, clients: list[Client], few_processes: Limited
) -> None:
    ready(box)
    clients.append(Client(box))
    few_processes.take(box.machine.init)
    few_processes.limit(few_processes.count())
    with socket.create_connection(("127.0.0.1", box.port), timeout=30) as refused:
        assert refused.recv(4) == b""
    assert clients[0].says("still here") == "still here\n"
    box.event("ssh.connections.refused", reason="no sshd could be started")
    assert "no sshd could be started" in notices(box)["gate"]
    refused_metric = 'swarm_connections_refused_total{reason="no_process"}'
    until(lambda: box.metric(refused_metric) == "1.0", "the metric")
    few_processes.limit("max")
    assert logs_in(box)


FILL = "import time; block = bytearray(b'x') * {size}; print('full', flush=True); time.sleep(60)"


@pytest.mark.xdist_group("heavy")
@pytest.mark.parametrize(("size", "count"), [(600 << 20, 1), (16 << 20, 40)], ids=["one", "many"])
@pytest.mark.attack
def test_memory_that_runs_out_costs_neither_the_agent_nor_its_ssh(
    box: Box, clients: list[Client], little_memory: Limited, size: int, count: int
) -> None:
    """Among many small processes the agent would be the largest, and killed first."""
    ready(box)
    little_memory.take(box.machine.init)
    little_memory.limit(300 << 20)
    clients.append(Client(box))
    hog = f'for i in $(seq {count}); do {sys.executable} -c "{FILL.format(size=size)}" & done; wait'
    result = box.ssh(hog, timeout=90)
    assert "full" in result.stdout or count == 1
    assert clients[0].says("still here") == "still here\n"
    assert box.machine.running()
    assert logs_in(box)
    assert status(box)["memory"]["size"] > 0
    assert box.ssh("cat /proc/self/oom_score_adj").stdout == "200\n"


@pytest.mark.long
@pytest.mark.timeout(240)
def test_stopped_for_two_minutes_it_goes_on(box: Box, clients: list[Client]) -> None:
    """SIGSTOP stands for a host that has no time for us."""
    ready(box)
    clients.append(Client(box))
    assert box.agent("ban", "203.0.113.1").returncode == 0
    init = box.machine.init
    os.kill(init, signal.SIGSTOP)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", box.port), timeout=60) as waiting:
        until(lambda: time.monotonic() - began > 121, "two minutes", 150)
        # Open sessions do not need the agent.
        assert clients[0].says("meanwhile") == "meanwhile\n"
        os.kill(init, signal.SIGCONT)
        assert waiting.recv(4) == b"SSH-"
    assert logs_in(box)
    assert "203.0.113.1" in box.agent("bans").stdout
    assert "the machine stood still" in box.event("sleep.resumed")["because"]
    until(lambda: float(box.metric("swarm_event_loop_lag_seconds")) > 100, "the metric")


@pytest.mark.attack
def test_a_log_that_nobody_reads_stops_nothing(make_box: BoxMaker, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    box = make_box()
    folder = tmp_path / "services"
    folder.mkdir(mode=0o755)
    talk = "[service.talk]\ncommand = \"sh -c 'while :; do seq 5000; sleep 0.2; done'\"\n"
    (folder / "talk.toml").write_text(talk)
    (folder / "talk.toml").chmod(0o644)
    with os.fdopen(writing, "wb") as log:
        box.start({"SWARM_SERVICES_DIR": str(folder)}, stdout=log)
    until(box.answers, "an SSH banner")
    until(lambda: logs_in(box), "a login")
    ready(box)
    until(lambda: float(box.metric("swarm_log_dropped_lines_total")) > 0, "dropped lines", 60)
    until(lambda: "nobody has read stdout" in notices(box).get("log", ""), "it in the status")
    assert logs_in(box)
    assert box.agent("ban", "203.0.113.1").returncode == 0
    assert box.stop() == 0
    os.close(reading)
