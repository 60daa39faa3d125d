"""The agent is a good init: it reaps, forwards signals and statuses, and stops in time."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.init import foreground
from agent.init.proctree import descendants
from tests.conftest import BoxMaker
from tests.support import ROOT, Box, Screen, command_lines, terminals_work, until

ORPHANS = "i=0; while [ $i -lt {count} ]; do ( : & ); i=$((i + 1)); done; "
"""A shell: each of its forks costs a third of what Python's does."""

# Without handlers: one that prints fails when it interrupts another print.
PRINT_SIGNALS = """
import signal
numbers = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready", flush=True)
while True:
    print(int(signal.sigwait(numbers)), flush=True)
"""


def children_of(pid: int) -> list[int]:
    """The direct children of a process, zombies included."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


@pytest.fixture(params=["pid 1", "subreaper"])
def mode(request: pytest.FixtureRequest) -> bool:
    """Both kinds of init: PID 1 of a namespace, or another init's child."""
    if request.param == "pid 1" and not ROOT:
        pytest.skip("needs root: PID namespaces")
    return bool(request.param == "pid 1")


def environ_for(namespaces: bool) -> dict[str, str]:
    """Without namespaces root needs an account of this computer to serve."""
    return {} if namespaces or not ROOT else {"SWARM_USER": "nobody"}


@pytest.mark.xdist_group("heavy")
def test_ten_thousand_orphans_are_reaped_while_the_gate_answers(
    make_box: BoxMaker, mode: bool
) -> None:
    """No zombie remains, every connection meanwhile is served, and statuses stay correct."""
    box = make_box(namespaces=mode)
    many = {"SWARM_MAX_CONNECTIONS_PER_MINUTE": "1000000"}
    script = ORPHANS.format(count=10_000) + "exit 42"
    box.boot(environ_for(mode) | many, "sh", "-c", script)
    slowest = 0.0
    while box.machine.running():
        began = time.monotonic()
        if not box.events("command.ended"):
            assert box.answers() or box.event("command.ended")
            slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.05)
    assert box.machine.wait() == 42
    assert box.event("agent.stopped")["orphans_reaped"] >= 10_000
    print(f"slowest banner while orphans were reaped: {slowest * 1000:.0f} ms")


def test_no_zombie_is_left(make_box: BoxMaker, mode: bool) -> None:
    box = make_box(namespaces=mode)
    script = ORPHANS.format(count=500) + "echo made; exec sleep 1000"
    box.boot(environ_for(mode), "sh", "-c", script)
    until(lambda: "made" in box.log_path.read_text(), "the orphans")
    init = box.machine.init
    until(lambda: not [pid for pid in children_of(init) if state_of(pid) == "Z"], "no zombie")
    # Only the command remains, and perhaps the probe's closing sshd.
    until(lambda: len(children_of(init)) == 1, "only the command left")


def test_without_a_subreaper_orphans_go_elsewhere() -> None:
    """The negative control: the test above fails if nothing adopts the orphans."""
    orphan = "import os,time\npid = os.fork()\nprint(pid or '', end='')\npid or time.sleep(1000)"
    script = f"import subprocess;subprocess.run({[sys.executable, '-c', orphan]!r})\ninput()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(os.read(parent.stdout.fileno(), 100))
        try:
            until(lambda: not children_of(parent.pid), "the orphan is somebody else's")
            assert state_of(pid) == "S"
        finally:
            os.kill(pid, signal.SIGKILL)
            parent.kill()


def run_to_the_end(box: Box, environ: dict[str, str], command: Sequence[str]) -> int:
    box.start(environ, *command)
    return box.machine.wait(60)


FORKED = """
import os, sys
import agent.life.main, agent.life.parts, structlog
from agent.__main__ import main
for number in range(int(sys.argv[1]), int(sys.argv[2])):
    pid = os.fork()
    if pid == 0:
        sys.argv = ["swarm-agent", "run", "--", "sh", "-c", f"exit {number}"]
        main()
    print("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""Agents one after the other, each a process forked where Python has imported them already."""


@pytest.mark.parametrize("first", range(0, 256, 16))
def test_all_exit_codes_become_the_containers(make_box: BoxMaker, first: int) -> None:
    box = make_box(namespaces=False)
    codes = range(first, first + 16)
    bare = {"SWARM_HOME_LINKS": "", "SWARM_CHECKPOINTS": "off"}
    box.folder.mkdir()
    with box.log_path.open("wb") as log:
        agents = [sys.executable, "-c", FORKED, str(codes.start), str(codes.stop)]
        box.machine.start(box.environ | environ_for(False) | bare, command=agents, stdout=log)
    assert box.machine.wait(60) == 0
    said = box.log_path.read_text().splitlines()
    assert [line for line in said if line.startswith("status")] == [f"status {n}" for n in codes]
    # None of them is the status of a boot that failed before there was a command.
    assert [event["status"] for event in box.events("command.ended")] == [*codes]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGSEGV])
def test_death_by_signal_is_128_and_the_signal(make_box: BoxMaker, mode: bool, number: int) -> None:
    box = make_box(namespaces=mode)
    command = ["sh", "-c", f"ulimit -c 0; kill -{int(number)} $$"]
    assert run_to_the_end(box, environ_for(mode), command) == 128 + number


@pytest.mark.parametrize(("command", "status"), [("/no/such", 127), ("/etc", 126)])
def test_command_that_cannot_run_has_the_shells_status(
    make_box: BoxMaker, command: str, status: int
) -> None:
    box = make_box(namespaces=False)
    assert run_to_the_end(box, environ_for(False), [command]) == status
    assert f"cannot run {command}" in box.event("agent.problem")["problem"]


def test_every_forwarded_signal_reaches_the_command(make_box: BoxMaker, mode: bool) -> None:
    box = make_box(namespaces=mode)
    box.boot(environ_for(mode), sys.executable, "-c", PRINT_SIGNALS)
    until(lambda: "ready\n" in box.log_path.read_text(), "the command")
    for number in foreground.FORWARDED:
        box.machine.signal(number)
        until(
            lambda n=number: f"\n{int(n)}\n" in "\n" + box.log_path.read_text(),  # type: ignore[misc]
            f"signal {number} at the command",
        )
    assert box.answers()


@pytest.mark.attack
def test_no_other_signal_ends_or_stops_the_agent(make_box: BoxMaker, mode: bool) -> None:
    """As under tini and dumb-init, and on Fly.io, where the agent is not PID 1."""
    box = make_box(namespaces=mode).boot(environ_for(mode))
    about_the_process = {
        *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL),
        *(signal.SIGTRAP, signal.SIGABRT, signal.SIGSYS),
    }
    ends = {signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT}
    for number in sorted(signal.valid_signals() - about_the_process - ends):
        box.machine.signal(number)
    assert box.answers()
    assert box.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signals_reach_the_command_and_its_status_counts(
    make_box: BoxMaker, mode: bool, number: int
) -> None:
    box = make_box(namespaces=mode)
    script = f"trap 'exit 33' {int(number)}; echo ready; while :; do sleep 0.1; done"
    box.boot(environ_for(mode), "sh", "-c", script)
    until(lambda: "ready\n" in box.log_path.read_text(), "the command")
    box.machine.signal(number)
    assert box.machine.wait(30) == 33


LEAVES_ITS_GROUP = """
import os, signal, time
os.setpgid(0, os.getpgid(os.getppid()))
signal.signal(signal.SIGTERM, lambda *_: os._exit(33))
print("ready", flush=True)
while True: time.sleep(0.1)
"""


@pytest.mark.attack
def test_a_command_that_leaves_its_group_is_still_stopped_with_its_status(
    make_box: BoxMaker, mode: bool
) -> None:
    box = make_box(namespaces=mode)
    box.boot(environ_for(mode), sys.executable, "-c", LEAVES_ITS_GROUP)
    until(lambda: "ready\n" in box.log_path.read_text(), "the command")
    assert box.stop() == 33


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 3)
        time.sleep(6543)
    os._exit(0)
os.wait()
os._exit(7)
"""


@pytest.mark.attack
def test_a_command_that_goes_into_the_background_ends_with_all_that_it_left(
    make_box: BoxMaker, mode: bool
) -> None:
    box = make_box(namespaces=mode)
    mark = f"time.sleep(6543.{box.port})"  # only of this machine
    box.start(environ_for(mode), sys.executable, "-c", DAEMON.replace("time.sleep(6543)", mark))
    assert box.machine.wait(60) == 7
    assert not [line for line in command_lines() if mark in line]


def test_signals_reach_the_whole_group_of_the_command(make_box: BoxMaker, mode: bool) -> None:
    """Not tested with a stop signal: at a stop every process is stopped, whoever got the signal."""
    box = make_box(namespaces=mode)
    hears = "import os, signal\nname = 'child' if os.fork() == 0 else 'parent'\n"
    hears += "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
    hears += "print(name, 'ready', flush=True)\nsignal.sigwait([signal.SIGUSR1])\n"
    hears += "print(name, 'heard', flush=True)\nsignal.sigwait([signal.SIGUSR1])"
    box.boot(environ_for(mode), sys.executable, "-c", hears)

    def both(word: str) -> bool:
        return all(f"{name} {word}\n" in box.log_path.read_text() for name in ("parent", "child"))

    until(lambda: both("ready"), "parent and child")
    box.machine.signal(signal.SIGUSR1)
    until(lambda: both("heard"), "the signal at both")


@pytest.mark.skipif(
    not terminals_work(), reason="sshd without root needs devpts mounted with gid=5"
)
def test_stop_ends_twenty_sessions_with_a_line_and_leaves_nothing(
    make_box: BoxMaker, mode: bool
) -> None:
    box = make_box(namespaces=True) if mode else make_box()
    box.boot()
    command = box.ssh_command("echo in; exec sleep 1000", options=["-tt"])
    clients = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(20)
    ]
    for client in clients:
        assert client.stdout is not None
        assert b"in" in client.stdout.readline()
    mark = f"sleep 1001.{box.port}"  # only of this machine
    detached = f"setsid nohup sh -c 'trap \"\" HUP; {mark}' >/dev/null 2>&1 & echo started"
    assert box.ssh(detached).stdout == "started\n"
    until(lambda: any(mark in line for line in command_lines()), "the detached process")
    assert box.stop() == 0
    for client in clients:
        assert b"this machine is stopping (SIGTERM)" in client.communicate()[0]
    assert not [line for line in command_lines() if mark in line]
    assert len(box.events("ssh.session.closed")) == 21
    assert not box.events("agent.stop.forced")


def test_what_stays_is_asked_to_end_and_not_to_read_its_settings_again(
    make_box: BoxMaker, mode: bool, tmp_path: Path
) -> None:
    """SIGHUP and SIGCONT mean something else to many daemons."""
    box = make_box(namespaces=mode)
    (tmp_path / "daemon").write_text(PRINT_SIGNALS)
    script = (
        f"{sys.executable} -c 'exec(open(0).read())' <{tmp_path}/daemon & "
        "sh -c 'trap \"echo stopped got TERM; exit\" TERM; kill -STOP $$; exec sleep 1000' & "
        # Like an interactive shell.
        'sh -c \'trap "" TERM; trap "echo deaf got HUP; exit" HUP; echo deaf; '
        "while :; do sleep 0.1; done' & "
        "trap '' TERM; trap 'echo command got HUP; exit' HUP; while :; do sleep 0.1; done"
    )
    box.start(environ_for(mode) | {"SWARM_STOP_TIMEOUT": "4s"}, "sh", "-c", script)
    until(lambda: {"ready", "deaf"} <= set(box.log_path.read_text().splitlines()), "both")
    until(
        lambda: any(process.state == "T" for process in descendants(box.machine.process.pid)),
        "the stopped one",
    )
    box.stop()
    said = box.log_path.read_text().splitlines()
    assert [line for line in said if line.isdigit()] == ["15"]
    assert "stopped got TERM" in said
    assert "deaf got HUP" in said
    # The command itself got the signal that began the stop.
    assert "command got HUP" not in said


def test_who_does_not_end_is_killed_within_the_budget(make_box: BoxMaker, mode: bool) -> None:
    box = make_box(namespaces=mode)
    script = "trap '' TERM HUP INT; echo ready; while :; do sleep 1; done"
    box.boot(environ_for(mode) | {"SWARM_STOP_TIMEOUT": "3s"}, "sh", "-c", script)
    until(lambda: "ready\n" in box.log_path.read_text(), "the command")
    assert box.stop() == 128 + signal.SIGKILL
    assert box.event("agent.stop.forced")["reason"] == "time is over"
    # The command would never exit; a kill may take some time on a busy computer.
    assert 2 < box.event("agent.stopped")["seconds"] < 3 + 20


def test_second_stop_signal_means_now(make_box: BoxMaker, mode: bool) -> None:
    box = make_box(namespaces=mode)
    script = "trap '' TERM HUP INT; echo ready; while :; do sleep 1; done"
    box.boot(environ_for(mode) | {"SWARM_STOP_TIMEOUT": "1h"}, "sh", "-c", script)
    until(lambda: "ready\n" in box.log_path.read_text(), "the command")
    box.machine.signal(signal.SIGTERM)
    until(lambda: box.events("agent.stopping"), "the stop")
    box.machine.signal(signal.SIGINT)
    assert box.machine.wait(30) == 128 + signal.SIGKILL
    assert box.event("agent.stop.forced")["reason"] == "second stop signal"


def test_hangup_does_not_end_the_agent(box: Box) -> None:
    box.machine.signal(signal.SIGHUP)
    assert box.answers()
    assert box.ssh("echo still here").stdout == "still here\n"


def test_stop_during_boot_ends_at_once(make_box: BoxMaker) -> None:
    box = make_box(namespaces=False)
    box.start(environ_for(False))
    box.machine.signal(signal.SIGTERM)
    assert box.machine.wait(30) in (0, -signal.SIGTERM)


def test_inherited_signal_state_is_reset(make_box: BoxMaker) -> None:
    """A parent that blocked or ignored signals must not make the children unstoppable."""
    box = make_box(namespaces=False)
    prefix = [sys.executable, "-c", SPOILED_SIGNALS, "--"]

    box.boot(environ_for(False), "sh", "-c", "cat /proc/self/status; sleep 1000", prefix=prefix)
    until(lambda: "SigCgt" in box.log_path.read_text(), "the status")
    status = dict(
        line.split(":\t") for line in box.log_path.read_text().splitlines() if ":\t" in line
    )
    # The C library keeps signals 32 and 33 for itself: nobody can set them.
    ours = ~(0b11 << 31)
    assert int(status["SigBlk"], 16) & ours == 0
    assert int(status["SigIgn"], 16) & ours == 0


SPOILED_SIGNALS = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGILL, signal.SIGTTIN})
for number in (signal.SIGHUP, signal.SIGTTOU, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def test_terminal_is_handed_to_the_command(make_box: BoxMaker) -> None:
    """The command may read the terminal, and Ctrl-C reaches it, not the agent."""
    box = make_box(namespaces=False)
    master, slave = pty.openpty()
    # Its own session with the terminal as its controlling terminal, as under docker run -it.
    prefix = ["setsid", "--ctty", "--wait"]
    script = "trap 'echo interrupted; exit 9' INT; read -r line; echo got $line; sleep 1000 & wait"
    box.start(
        environ_for(False),
        *("sh", "-c", script),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        prefix=prefix,
    )
    os.close(slave)
    screen = Screen(master)
    screen.type("hello\n")
    screen.expect("got hello")
    screen.type("\x03")
    screen.expect("interrupted")
    assert box.machine.wait(30) == 9
    os.close(master)
