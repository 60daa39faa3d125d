"""The agent re-executes in place, after an unexpected error or by `swarm-agent reload`."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agent.init.proctree import descendants
from tests.conftest import BoxMaker
from tests.limited import Limited
from tests.services import Services
from tests.support import Box, Client, ready, until
from tests.system.test_faults import inside

BREAKABLE = f"""#!{sys.executable}
# The agent, with a built-in fault: SIGTTIN causes an unexpected error at its top.
import asyncio, signal, sys
from agent.life import ending

class Breaking(ending.Stop):
    def __init__(self, *words):
        super().__init__(*words)
        loop = asyncio.get_running_loop()
        self.broken = loop.create_future()
        loop.add_signal_handler(signal.SIGTTIN, self._break)

    def _break(self):
        if not self.broken.done():
            self.broken.set_exception(RuntimeError("built in"))

    async def wait(self):
        decided = asyncio.ensure_future(super().wait())
        done, _ = await asyncio.wait([self.broken, decided], return_when="FIRST_COMPLETED")
        return done.pop().result()

ending.Stop = Breaking
sys.argv[0] = "swarm-agent"
from agent.__main__ import main
main()
"""


@pytest.fixture
def breakable(make_box: BoxMaker, tmp_path: Path) -> Box:
    """A machine whose agent can be made to fail; not booted yet."""
    program = tmp_path / "breakable"
    program.write_text(BREAKABLE)
    program.chmod(0o755)
    box = make_box()
    box.machine.program = str(program)
    return box


def break_it(box: Box) -> None:
    """Cause an unexpected error in the agent, and wait until the new one serves."""
    before = len(box.events("agent.reexecuted"))
    box.machine.signal(signal.SIGTTIN)
    until(lambda: len(box.events("agent.reexecuted")) > before, "a new agent in its place")


def test_an_error_at_the_top_keeps_sessions_bans_and_the_process_id(
    breakable: Box, clients: list[Client]
) -> None:
    box = ready(breakable.boot())
    clients += [Client(box), Client(box)]
    assert box.agent("ban", "203.0.113.9").returncode == 0
    assert box.agent("awake", "--for", "2h", "--name", "work").returncode == 0
    init = box.machine.init
    before = json.loads(box.agent("sessions", "--json").stdout)

    break_it(box)
    ready(box)

    assert box.machine.init == init
    after = json.loads(box.agent("sessions", "--json").stdout)
    assert sorted(each["id"] for each in after) == sorted(each["id"] for each in before)
    assert {each["since"] for each in after} == {each["since"] for each in before}
    assert {each["pid"] for each in after} == {each["pid"] for each in before}
    assert "203.0.113.9" in box.agent("bans").stdout
    assert "work" in box.agent("awake", "--list").stdout
    assert clients[0].says("still here") == "still here\n"
    assert box.ssh("echo new").stdout == "new\n"
    assert len(box.events("ssh.hostkey")) == 1
    failed = box.event("agent.failed")
    assert failed["problem"] == "RuntimeError: built in" and "Traceback" in failed["where"]
    status = json.loads(box.agent("status", "--json").stdout)
    assert status["failures"] == 1 and status["latest_failure"] == "RuntimeError: built in"
    assert "failed once" in box.agent("status").stdout
    assert box.metric('swarm_reexecutions_total{reason="failure"}') == "1.0"
    # Their ends are known, with their data.
    session = after[0]["id"]
    for client in clients:
        assert client.end() == 0
    assert box.event("ssh.session.closed", session=session)["reason"] == "logged out"
    until(lambda: box.agent("sessions", "--json").stdout.strip() == "[]", "no session any more")
    history = json.loads(box.agent("history", "--json").stdout)
    assert {session} <= {each["id"] for each in history if each["closed"] is not None}
    assert box.stop() == 0


def test_no_client_is_refused_meanwhile(breakable: Box) -> None:
    box = ready(breakable.boot({"SWARM_MAX_CONNECTIONS_PER_MINUTE": "100000"}))
    over = threading.Event()
    banners: list[bytes] = []

    def knock() -> None:
        while not over.is_set():
            with socket.create_connection(("127.0.0.1", box.port), timeout=20) as client:
                banners.append(client.recv(4))

    threads = [threading.Thread(target=knock) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        break_it(box)
        served = len(banners)
        until(lambda: len(banners) > served + 8, "more banners")  # noqa: B023
    over.set()
    for thread in threads:
        thread.join()
    assert set(banners) == {b"SSH-"}


def test_strikes_and_connections_without_a_login_are_kept(breakable: Box) -> None:
    box = breakable.start(
        {
            "SWARM_MAXRETRY": "1",
            "SWARM_PROXY_PROTOCOL": "required",
            "SWARM_PROXY_NETWORKS": "127.0.0.1/32",
        }
    )
    box.event("boot.listening")
    ready(box)

    def knock(words: bytes = b"") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", box.port), timeout=20)
        client.sendall(b"PROXY TCP4 203.0.113.9 10.0.0.1 5000 22\r\n")
        assert client.recv(4) == b"SSH-"
        client.sendall(words)
        return client

    def waiting() -> float:
        return float(box.metric("swarm_unauthenticated_connections"))

    with knock(), knock(b"this is no SSH\r\n"):  # half a strike
        box.event("ssh.connection.closed", verdict="probe")
        until(lambda: waiting() == 1, "the one that said nothing")
        half = socket.create_connection(("127.0.0.1", box.port), timeout=20)
        half.sendall(b"PROXY TCP4 203.0.113.10 10")
        break_it(box)
        half.sendall(b".0.0.1 5000 22\r\n")  # a header has three seconds
        assert half.recv(4) == b"SSH-"
        half.close()
        ready(box)
        until(lambda: waiting() == 1, "it is still there")
        knock(b"this is no SSH\r\n").close()
        ban = box.event("ban.started")
    assert ban["network"] == "203.0.113.9" and ban["cut"] == 1


SERVICES = """
[service.talker]
command = "sh -c 'n=0; while :; do n=$((n+1)); echo line $n; sleep 0.05; done'"

[service.ready]
command = "sleep 1000"

[service.setup]
command = "sh -c 'echo ran >>$HOME/marks'"
oneshot = true

[service.never]
command = "sleep 1000"
autostart = false
"""


@pytest.mark.root
def test_services_go_on_and_are_still_watched(breakable: Box, tmp_path: Path) -> None:
    marks = breakable.folder / "home" / breakable.user / "marks"
    services = Services(breakable, tmp_path / "services").boot(SERVICES)
    services.becomes("setup", "done")
    talker = services.becomes("talker", "running")
    asleep = services.becomes("ready", "running")

    break_it(breakable)
    ready(breakable)

    after = services.all()
    assert after["talker"]["pid"] == talker["pid"] and after["talker"]["state"] == "running"
    assert after["ready"]["pid"] == asleep["pid"]
    assert after["setup"]["state"] == "done" and marks.read_text() == "ran\n"
    assert after["never"]["state"] == "inactive"
    said = breakable.agent("logs", "talker").stdout
    count = said.count("line")
    assert "line 1\n" in said
    until(lambda: breakable.agent("logs", "talker").stdout.count("line") > count, "more output")
    numbers = [
        int(line.rpartition(" ")[2])
        for line in breakable.agent("logs", "talker").stdout.splitlines()
    ]
    assert numbers == list(range(1, len(numbers) + 1))
    # The status of an adopted child is known: it is restarted according to its rules.
    subprocess.run(
        [
            "nsenter",
            "-t",
            str(breakable.machine.init),
            "-p",
            "-m",
            "kill",
            "-9",
            str(talker["pid"]),
        ],
        check=True,
    )
    breakable.event("service.backoff", service="talker", because="ended with signal 9")
    services.becomes("talker", "running")
    assert services.all()["talker"]["restarts"] == 1
    assert breakable.agent("stop", "ready").returncode == 0
    assert services.becomes("ready", "inactive")
    assert breakable.stop() == 0


def test_more_failures_than_help_end_the_machine(breakable: Box) -> None:
    box = breakable.boot()
    for _ in range(5):
        break_it(box)
    box.machine.signal(signal.SIGTTIN)
    assert box.machine.wait(30) == os.EX_SOFTWARE
    assert len(box.events("agent.failed")) == 6


def test_an_error_in_one_step_is_told_and_ends_nothing(make_box: BoxMaker, tmp_path: Path) -> None:
    program = tmp_path / "stumbling"
    program.write_text(
        BREAKABLE.replace("self.broken.set_exception(RuntimeError(", "(lambda e: 1 / 0)((")
    )
    program.chmod(0o755)
    box = make_box()
    box.machine.program = str(program)
    ready(box.boot())
    box.machine.signal(signal.SIGTTIN)
    assert "ZeroDivisionError" in box.event("agent.error")["problem"]
    assert box.ssh("echo on").stdout == "on\n"
    assert box.metric("swarm_errors_unhandled_total") == "1.0"
    assert "an unexpected error" in box.agent("status").stdout
    assert not box.events("agent.failed")


def test_reload_takes_over_every_setting_and_keeps_the_sessions(
    make_box: BoxMaker, clients: list[Client], tmp_path: Path
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text("login_grace_time = '30s'\n")
    box = ready(make_box().boot({"SWARM_CONFIG": str(config)}))
    clients.append(Client(box))
    init = box.machine.init
    config.write_text("login_grace_time = '7s'\nnonsense = 1\n")
    refused = box.agent("reload")
    assert refused.returncode == 1 and "nonsense" in refused.stderr, refused
    assert not box.events("agent.reexecuted")
    config.write_text("login_grace_time = '7s'\n")
    done = box.agent("reload")
    assert done.returncode == 0, done
    assert done.stdout == "reloaded: 1 session and 0 services kept running\n"
    assert box.machine.init == init
    assert clients[0].says("still here") == "still here\n"
    inside = (
        Path(f"/proc/{init}/root/run/swarm/sshd_config")
        if box.machine.namespaces
        else (box.folder / "run" / "sshd_config")
    )
    assert "LoginGraceTime 7\n" in inside.read_text()
    assert json.loads(box.agent("status", "--json").stdout)["reloads"] == 1
    assert not box.events("agent.failed")
    assert box.metric('swarm_reexecutions_total{reason="reload"}') == "1.0"


@pytest.mark.root
def test_the_login_account_may_not_reload(box: Box) -> None:
    ready(box)
    refused = box.ssh("swarm-agent reload")
    assert refused.returncode == 1 and "only root may do this" in refused.stderr


def test_settings_spoilt_since_the_start_do_not_end_the_machine(
    breakable: Box, tmp_path: Path
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text("idle_timeout = '2h'\n")
    box = ready(breakable.boot({"SWARM_CONFIG": str(config), "SWARM_SLEEP_MODE": "stop"}))
    config.write_text("this is [no TOML")
    break_it(box)
    ready(box)
    assert box.ssh("echo in").stdout == "in\n"
    assert "expected TOML" in box.event("settings.refused")["problem"]
    assert "2 h" in box.agent("why").stdout


def test_the_command_goes_on_and_its_status_is_the_machines(breakable: Box) -> None:
    box = ready(breakable.boot({}, "sh", "-c", "trap 'exit 42' USR1; while :; do sleep 0.1; done"))
    break_it(box)
    assert not box.events("command.ended")
    box.machine.signal(signal.SIGUSR1)
    assert box.machine.wait(30) == 42


def test_a_stop_signal_that_comes_meanwhile_is_heard(breakable: Box) -> None:
    box = ready(breakable.boot())
    box.machine.signal(signal.SIGTTIN)
    box.event("agent.failed")
    box.machine.signal(signal.SIGTERM)
    assert box.machine.wait(30) == 0
    assert box.event("agent.stopped")["reason"] == "SIGTERM"


def test_a_command_that_ends_meanwhile_is_not_started_again(breakable: Box) -> None:
    box = ready(breakable.boot({}, "sh", "-c", "trap 'exit 42' USR1; while :; do sleep 0.1; done"))
    box.machine.signal(signal.SIGTTIN)
    box.machine.signal(signal.SIGUSR1)
    assert box.machine.wait(30) == 42
    assert len(box.events("command.started")) == 1


@pytest.mark.root
@pytest.mark.parametrize(
    "setting", ["user = 'nobody-here'", "sshd = '/bin/false'", "listen = '127.0.0.1:{taken}'"]
)
def test_a_reload_into_settings_that_do_not_work_ends_nothing(
    make_box: BoxMaker, clients: list[Client], tmp_path: Path, setting: str
) -> None:
    config = tmp_path / "agent.toml"
    box = make_box()
    box.folder.mkdir()
    config.write_text(f"listen = '127.0.0.1:{box.port}'\nuser = 'dev'\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environ = {"SWARM_CONFIG": str(config)}
        given = {k: v for k, v in box.environ.items() if k not in ("SWARM_LISTEN", "SWARM_USER")}
        box.machine.start(given | environ, command=[box.machine.program, "run"], **logs(box))
        until(box.answers, "an SSH banner")
        ready(box)
        clients.append(Client(box))
        name = setting.partition(" ")[0]
        kept = [line for line in config.read_text().splitlines() if not line.startswith(name)]
        new = setting.format(taken=taken.getsockname()[1])
        config.write_text("\n".join([*kept, new, ""]))
        refused = box.agent("reload")
    assert refused.returncode == 1, refused
    assert "keeps its previous settings" in refused.stderr
    assert clients[0].says("still here") == "still here\n"
    assert box.ssh("echo in").stdout == "in\n"


@pytest.mark.root
@pytest.mark.attack
@pytest.mark.xdist_group("heavy")
@pytest.mark.parametrize("changed", [False, True], ids=["same settings", "other settings"])
@pytest.mark.parametrize("lack", ["space", "processes"])
def test_a_reload_without_space_or_processes_ends_nothing(
    make_box: BoxMaker,
    clients: list[Client],
    few_processes: Limited,
    tmp_path: Path,
    lack: str,
    changed: bool,
) -> None:
    """Everything stays in force, and the reason is logged."""
    config = tmp_path / "agent.toml"
    config.write_text("login_grace_time = '30s'\n")
    box = make_box()
    small = "mkdir /run/swarm && mount -t tmpfs -o size=256k,mode=755 tmpfs /run/swarm"
    ready(box.boot({"SWARM_CONFIG": str(config)}, before=small))
    clients.append(Client(box))
    if changed:
        config.write_text("login_grace_time = '20s'\n")
    if lack == "space":
        inside(box, "sh", "-c", "cat /dev/zero >/run/swarm/full 2>/dev/null; true")
    else:
        few_processes.take(box.machine.init)
        few_processes.limit(few_processes.count())
    command, environ = box.agent_command("reload")
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as reload:
        if lack == "processes":
            path = Path(f"/proc/{box.machine.init}/environ")
            until(lambda: b"_SWARM_HANDED=" in path.read_bytes(), "the next agent")
            with socket.create_connection(("127.0.0.1", box.port), timeout=60) as refused:
                assert refused.recv(4) == b""
            assert clients[0].says("still here") == "still here\n"
            few_processes.limit("max")
        assert reload.wait(60) == (1 if changed else 0)
    if changed:
        assert box.event("settings.refused")["problem"]
    assert clients[0].says("still here") == "still here\n"
    assert box.ssh("echo in").stdout == "in\n"


WITHOUT_MEMFD = """#!{python}
# The agent where the container refuses memfd_create(2).
import os, sys
def refuse(*_):
    raise PermissionError("refused")
os.memfd_create = refuse
sys.argv[0] = "swarm-agent"
from agent.__main__ import main
main()
"""


@pytest.mark.attack
def test_without_files_in_memory_people_log_in_and_it_re_executes(
    make_box: BoxMaker, clients: list[Client], tmp_path: Path
) -> None:
    program = tmp_path / "without"
    program.write_text(WITHOUT_MEMFD.format(python=sys.executable))
    program.chmod(0o755)
    box = make_box()
    box.machine.program = str(program)
    ready(box.boot())
    clients.append(Client(box))
    assert box.agent("reload").returncode == 0
    assert clients[0].says("still here") == "still here\n"
    assert box.ssh("echo in").stdout == "in\n"


def logs(box: Box) -> dict[str, Any]:
    return {"stdout": box.log_path.open("wb"), "stderr": box.error_path.open("wb")}


@pytest.mark.root
def test_a_file_that_replaced_a_link_of_the_home_stays_as_it_is(box: Box) -> None:
    ready(box)
    assert box.ssh("echo old >.gitconfig; echo new >x && mv x .gitconfig").returncode == 0
    assert box.agent("reload").returncode == 0
    assert box.ssh("cat .gitconfig; ls -A").stdout.startswith("new\n")
    assert "before" not in box.ssh("ls -A").stdout


SLOW = """
[service.slow]
command = "sh -c 'trap \\"sleep 3; exit 0\\" TERM; echo {word}; while :; do sleep 0.1; done'"
stop_timeout = "20s"
"""


@pytest.mark.root
def test_a_service_that_is_being_changed_runs_once_afterwards(
    make_box: BoxMaker, tmp_path: Path
) -> None:
    box = make_box()
    services = Services(box, tmp_path / "services")
    services.boot(SLOW.format(word="before"))
    first = services.becomes("slow", "running")["pid"]
    services.write(SLOW.format(word="after"))
    until(lambda: services.all()["slow"]["state"] == "stopping", "the old one is stopping")
    assert box.agent("reload").returncode == 0
    box.event("service.said", service="slow", line="after")
    assert services.becomes("slow", "running")["pid"] != first
    running = [each for each in descendants(box.machine.init) if each.group == each.pid]
    assert len([each for each in running if each.command == "sh"]) == 1
    assert not box.events("service.crashed")


@pytest.mark.root
def test_bans_that_were_only_tried_out_are_not_kept(make_box: BoxMaker, tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text("ban_dry_run = 'on'\n")
    box = ready(make_box().boot({"SWARM_CONFIG": str(config)}))
    assert box.agent("ban", "203.0.113.9").returncode == 0
    assert "203.0.113.9" in box.agent("bans").stdout
    config.write_text("ban_dry_run = 'off'\n")
    assert box.agent("reload").returncode == 0
    assert "203.0.113.9" not in box.agent("bans").stdout


def test_exit_statuses_are_right_in_a_storm_of_logins(breakable: Box) -> None:
    box = ready(breakable.boot({"SWARM_MAX_CONNECTIONS_PER_MINUTE": "100000"}))
    results: list[int] = []

    def work(number: int) -> None:
        for _ in range(6):
            results.append(box.ssh(f"sleep 0.1; exit {number}").returncode - number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        break_it(box)
        time.sleep(0.3)
    for thread in threads:
        thread.join()
    assert results == [0] * 36
    ready(box)
    until(lambda: box.agent("sessions", "--json").stdout.strip() == "[]", "no session any more")
    until(lambda: len(box.events("ssh.session.closed")) == 36, "all of them in the log")


def test_another_version_ends_what_it_does_not_know(make_box: BoxMaker, tmp_path: Path) -> None:
    program = tmp_path / "upgraded"
    program.write_text(
        BREAKABLE.replace(
            "import asyncio,",
            "import agent, os; agent.__version__ = os.urandom(4).hex()\nimport asyncio,",
        )
    )
    program.chmod(0o755)
    box = make_box()
    box.machine.program = str(program)
    ready(box.boot())
    stranger = Client(box)
    box.machine.signal(signal.SIGTTIN)
    assert stranger.process.wait(30) != 0
    until(lambda: len(box.events("boot.listening")) == 2, "the new version")
    ready(box)
    assert box.ssh("echo in").stdout == "in\n"
    assert "another version" in box.agent("status").stdout
