"""Commands in a machine give true answers that fit the terminal."""

import json
import os
import pty
import re
import subprocess
import time

import pytest

from agent.observe.reports import CheckReport
from tests.conftest import BoxMaker
from tests.support import ROOT, Box, Client, Screen, ready, terminals_work, until


def login_agent(box: Box, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run `swarm-agent` as a logged-in user does."""
    where = "" if box.machine.namespaces else f"SWARM_RUN_DIR={box.folder}/run "
    return box.ssh(f"{where}{box.machine.program} {' '.join(words)}")


def test_check_asks_the_running_agent_about_its_own_settings(make_box: BoxMaker) -> None:
    box = ready(make_box().boot({"SWARM_IDLE_CPU": "30%", "SWARM_IDLE_SSH": "256B/s"}))
    done = login_agent(box, "check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"SWARM_IDLE_CPU +30% +environment", done.stdout)
    assert re.search(r"SWARM_IDLE_SSH +256B/s +environment", done.stdout)
    assert f"ok    key: ann: ssh-ed25519 {box.key.fingerprint}" in done.stdout
    assert "FAIL" not in done.stdout
    report = json.loads(login_agent(box, "check", "--json").stdout)
    assert set(report) == set(CheckReport.__struct_fields__)


@pytest.mark.parametrize("columns", [60, 80])
def test_no_line_is_wider_than_the_terminal(shared_box: Box, columns: int) -> None:
    ready(shared_box)
    with_session = Client(shared_box)
    try:
        shown = "status why keys history check sessions usage services checkpoints bans egress"
        for words in shown.split():
            command, environ = shared_box.agent_command(words)
            done = subprocess.run(
                command,
                env=environ | {"COLUMNS": str(columns)},
                capture_output=True,
                text=True,
                check=True,
            )
            # A long word, such as a path, is not broken: people copy it.
            lines = [line for line in done.stdout.splitlines() if len(line.split()) > 1]
            long = [line for line in lines if len(line) > columns]
            assert not long, words
    finally:
        assert with_session.end() == 0


def test_a_command_answers_at_once_where_no_agent_runs(box: Box) -> None:
    """A folder that an agent left behind does not mean that one runs."""
    ready(box)
    box.machine.kill()
    command = [box.machine.program, "status"] if not box.machine.namespaces else None
    folder = box.folder / "left"
    folder.mkdir()
    (folder / "sshd_config").touch()
    from deploy.machine import AGENT

    start = time.monotonic()
    done = subprocess.run(
        command or ["unshare", "--pid", "--fork", "--mount-proc", AGENT[0], "status"],
        env={"PATH": os.environ["PATH"], "SWARM_RUN_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no agent answers" in done.stderr
    if ROOT:  # without namespaces, other tests' agents would count
        assert time.monotonic() - start < 5


@pytest.mark.root
def test_addresses_that_are_never_banned_are_refused(box: Box) -> None:
    ready(box)
    done = box.agent("ban", "127.0.0.1")
    assert done.returncode == 1
    assert "127.0.0.1 is never banned" in done.stderr
    assert box.agent("bans").stdout == "nobody is banned\n"


def test_a_lease_is_what_keeps_it_awake(make_box: BoxMaker) -> None:
    box = ready(make_box().boot({"SWARM_SLEEP_MODE": "stop", "SWARM_LEASE_MAX": "24h"}))
    assert box.agent("awake", "--for", "1h", "--name", "short").stdout == (
        "short: awake for 1 h 00 min\n"
    )
    said = box.agent("awake", "--for", "48h", "--name", "build").stdout
    assert said == "build: awake for 1 d 0 h (the longest that SWARM_LEASE_MAX allows)\n"
    for command in ("status", "why"):
        text = " ".join(box.agent(command).stdout.split())
        assert re.search(r"held awake by build and 1 other lease for (1 d|23 h)", text)
        assert "unless something happens" not in text
    idle = json.loads(box.agent("why", "--json").stdout)
    assert idle["sleeps_in"] > 23 * 3600


@pytest.mark.skipif(not terminals_work(), reason="this devpts has no group tty")
def test_a_kicked_session_reads_why_and_history_knows(box: Box) -> None:
    ready(box)
    command = box.ssh_command(options=["-tt"])
    client, descriptor = pty.fork()
    if client == 0:
        os.execvp(command[0], command)
    screen = Screen(descriptor)
    screen.type("echo it is op''en\n")
    screen.expect("it is open")
    session = until(lambda: json.loads(box.agent("sessions", "--json").stdout), "the session")[0]
    until(
        lambda: json.loads(box.agent("sessions", "--json").stdout)[0]["terminals"], "its terminal"
    )
    assert box.agent("kick", session["id"]).returncode == 0
    screen.expect("this session was ended by an administrator")
    os.waitpid(client, 0)
    assert box.event("ssh.session.closed", session=session["id"])["reason"] == "kicked"
    until(lambda: "kicked" in box.agent("history").stdout, "the history")


def test_a_session_that_ends_with_the_machine_says_so(box: Box) -> None:
    client = Client(box)
    ready(box)
    assert box.stop() == 0
    client.process.wait(30)
    assert box.event("ssh.session.closed")["reason"].startswith("the machine stopped")


@pytest.mark.root
def test_commands_of_root_say_how_to_become_it(make_box: BoxMaker) -> None:
    box = ready(make_box().boot({"FLY_APP_NAME": "my-swarm", "SWARM_PROXY_PROTOCOL": "off"}))
    done = login_agent(box, "sleep")
    assert done.returncode == 1
    assert "only root may do this: fly ssh console --app my-swarm" in done.stderr
    assert "swarm sleep my-swarm" in done.stderr


def test_signals_know_their_past_after_a_reload(box: Box) -> None:
    client = Client(box)
    ready(box)

    def login() -> dict[str, object]:
        report = json.loads(box.agent("why", "--json").stdout)
        found: dict[str, object] = next(
            each for each in report["signals"] if each["signal"] == "login"
        )
        return found

    before = until(lambda: login()["because"], "the login")
    assert box.agent("reload").returncode == 0
    assert login()["because"] == before
    assert login()["idle"] is not None
    assert client.end() == 0


@pytest.mark.root
def test_the_machines_name_is_its_host_name(make_box: BoxMaker) -> None:
    box = ready(make_box().boot({"FLY_APP_NAME": "my-swarm", "SWARM_PROXY_PROTOCOL": "off"}))
    assert box.ssh("hostname").stdout == "my-swarm\n"
    assert box.agent("status").stdout.startswith("my-swarm: awake since")
