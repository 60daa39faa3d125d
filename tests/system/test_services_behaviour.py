"""Behaviour that users of tini, dumb-init, supervisord and pebble rely on, tested for services.

Their tests of a single command are in test_init.py, for `run -- COMMAND`.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.init.proctree import descendants
from tests.services import Services
from tests.support import command_lines, until

pytestmark = pytest.mark.root

DEFAULT_FATAL = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT XCPU XFSZ VTALRM "
    "PROF IO PWR SYS"
).split()

# Without handlers: one that prints fails when it interrupts another print.
SAYS_ITS_SIGNAL = """
import signal
numbers = set(range(1, 32)) - {signal.SIGKILL, signal.SIGCHLD, signal.SIGSTOP}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready", flush=True)
print(int(signal.sigwait(numbers)), flush=True)
"""


def number_of(name: str) -> int:
    return int(getattr(signal, f"SIG{name}"))


def running(services: Services, mark: str) -> list[str]:
    """The command lines of the machine that have `mark`."""
    pids = [process.pid for process in descendants(services.box.machine.init)]
    return [line for line in command_lines(pids) if mark in line]


def said(services: Services, name: str) -> list[str]:
    lines = services.box.agent("logs", name).stdout.splitlines()
    return [line.split(maxsplit=1)[1] for line in lines]


def test_exit_statuses_are_told(services: Services) -> None:
    """dumb-init D9."""
    statuses = [1, 2, 32, 64, 127, 254, 255]
    services.boot(
        "".join(
            f'[service.s{n}]\ncommand = ["sh", "-c", "exit {n}"]\nrestart = "never"\n'
            for n in statuses
        )
    )
    for number in statuses:
        assert services.becomes(f"s{number}", "failed")["detail"] == f"ended with status {number}"


def test_every_signal_that_kills_is_a_failure_and_starts_it_again(services: Services) -> None:
    """Horust test_restart_always_killed_by_signals; tini T5."""
    # bash ignores SIGQUIT, and Python SIGPIPE.
    once = (
        "import os, resource, signal, time; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
        "os.path.exists('NAME') and time.sleep(1000); "
        "open('NAME', 'w'); NAME == 9 or signal.signal(NAME, 0); os.kill(os.getpid(), NAME)"
    )
    services.boot(
        "".join(
            f'[service.s-{name.lower()}]\nbackoff = "10ms"\n'
            f'command = ["python3", "-c", "{once.replace("NAME", str(number_of(name)))}"]\n'
            for name in DEFAULT_FATAL
        )
    )
    started = {}
    for name in DEFAULT_FATAL:
        service = f"s-{name.lower()}"
        told = services.box.event("service.backoff", service=service)
        assert told["because"] == f"ended with signal {number_of(name)}"
        started[service] = services.box.event("service.started", service=service, restarts=1)["pid"]
    running = {name: entry["pid"] for name, entry in services.all().items()}
    assert running == started


def test_each_stop_signal_reaches_the_service(services: Services, tmp_path: Path) -> None:
    """Horust test_termination_all_custom_signals; dumb-init D1."""
    script = tmp_path / "says.py"
    script.write_text(SAYS_ITS_SIGNAL)
    tmp_path.chmod(0o755)
    names = [name for name in DEFAULT_FATAL if name not in ("KILL", "STKFLT")]
    services.boot(
        "".join(
            f'[service.s-{name.lower()}]\ncommand = ["{sys.executable}", "{script}"]\n'
            f'stop_signal = "SIG{name}"\nuser = "root"\n'
            for name in names
        )
    )
    for name in names:
        service = f"s-{name.lower()}"
        services.box.event("service.said", service=service, line="ready")
        assert services.box.agent("stop", service).returncode == 0
        services.box.event("service.said", service=service, line=str(number_of(name)))
    told = [(event["service"], event["line"]) for event in services.box.events("service.said")]
    assert len(told) == 2 * len(names)


def test_a_pipeline_is_stopped_as_a_whole(services: Services) -> None:
    """dumb-init D7."""
    services.boot(
        """
        [service.pipe]
        command = ["sh", "-c", "sleep 98761 | tail -n1234 & sleep 98762 | tail -n4321 >&2"]
        """
    )
    services.becomes("pipe", "running")
    until(lambda: len(running(services, "sleep 9876")) >= 2, "the pipeline")
    assert services.box.agent("stop", "pipe").returncode == 0
    until(
        lambda: not running(services, "sleep 9876") and not running(services, "tail -n1234"),
        "its end",
    )


def test_what_a_service_leaves_in_its_group_ends_with_it(services: Services) -> None:
    """dumb-init D8: when the shell exits, its background child is stopped."""
    services.boot(
        '[service.leaves]\ncommand = ["sh", "-c", "sleep 98765 & exit 0"]\noneshot = true\n'
    )
    services.becomes("leaves", "done")
    until(lambda: not running(services, "sleep 98765"), "the background child's end")


def test_an_orphan_that_left_the_group_is_reaped(services: Services) -> None:
    """pebble P1, tini T2, supervisor reap_unknown_pid: no zombie, and no confusion."""
    services.boot(
        '[service.forks]\ncommand = ["sh", "-c", "(setsid true &); echo forked; sleep 1000"]\n'
    )
    pid = services.becomes("forks", "running")["pid"]
    services.box.event("service.said", service="forks", line="forked")
    init = services.box.machine.init

    def zombies() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] == "Z" and int(fields[1]) == init:
                found.append(path.parent.name)
        return found

    until(lambda: not zombies(), "no zombie")
    assert services.becomes("forks", "running")["pid"] == pid


def test_a_service_starts_with_clean_signals_no_input_and_its_folder(services: Services) -> None:
    """tini T7, dumb-init D11: nothing is inherited from the agent."""
    services.boot(
        """
        [service.clean]
        command = ["sh", "-c", "grep -E 'Sig(Blk|Ign)' /proc/self/status; cat; pwd; echo end"]
        cwd = "/tmp"
        oneshot = true
        """
    )
    services.becomes("clean", "done")
    blocked, ignored, folder, end = said(services, "clean")
    assert int(blocked.split()[1], 16) == 0
    # The C library keeps signals 32 and 33 for itself.
    assert int(ignored.split()[1], 16) & ~(0b11 << 31) == 0
    assert (folder, end) == ("/tmp", "end")


def test_no_descriptor_of_the_agent_reaches_a_service(services: Services) -> None:
    services.boot('[service.fds]\ncommand = ["sh", "-c", "ls -1 /proc/self/fd"]\noneshot = true\n')
    services.becomes("fds", "done")
    assert said(services, "fds") == ["0", "1", "2", "3"]  # 3 is the folder that ls reads


def test_stop_while_it_is_starting_really_stops_it(services: Services) -> None:
    """pebble P4: it does not do its later work."""
    services.boot(
        """
        [service.slow]
        command = ["sh", "-c", "echo starts; sleep 54321; touch late"]
        ready = {file = "/home/dev/late"}
        """
    )
    services.becomes("slow", "starting")
    until(lambda: running(services, "sleep 54321"), "its child")
    assert services.box.agent("stop", "slow").stdout == "slow is inactive\n"
    assert not running(services, "sleep 54321")


def test_stop_during_backoff_is_final(services: Services) -> None:
    """pebble P6, process-compose RestartingProcessShutDown."""
    services.boot('[service.dies]\ncommand = "false"\nbackoff = "1h"\nbackoff_max = "1h"\n')
    services.becomes("dies", "backoff")
    assert services.box.agent("stop", "dies").stdout == "dies is inactive\n"
    assert services.box.stop() == 0
    assert len(services.box.events("service.started")) == 1


def test_a_shutdown_on_failure_is_not_replayed_at_the_next_boot(
    services: Services, tmp_path: Path
) -> None:
    """pebble P12: the next run begins with a new try."""
    services.write(
        '[service.vital]\nuser = "root"\n'
        f'command = ["sh", "-c", "[ -e {tmp_path}/well ] && exec sleep 1000; exit 9"]\n'
        'restart = "never"\non_failure = "shutdown"\n'
    )
    services.box.start({"SWARM_SERVICES_DIR": str(services.folder)})
    assert services.box.machine.wait(30) == 9
    (tmp_path / "well").touch()
    services.box.boot({"SWARM_SERVICES_DIR": str(services.folder)})
    until(lambda: services.box.agent("services").returncode == 0, "the control socket")
    services.becomes("vital", "running")


def test_output_that_is_no_text_and_odd_words_change_nothing(services: Services) -> None:
    """supervisor 638 (invalid UTF-8), 291a (% in the environment), 664 (other scripts)."""
    services.boot(
        r"""
        [service.odd]
        command = ["sh", "-c", '''printf 'a\377b\n'; echo "$SIGN"; printf 'no end' ''']
        env = {SIGN = "100 % 日本 $HOME %(here)s"}
        oneshot = true
        """
    )
    services.becomes("odd", "done")
    broken, sign, rest = said(services, "odd")
    assert (broken[0], broken[-1]) == ("a", "b")
    assert sign == "100 % 日本 $HOME %(here)s"
    assert rest == "no end"


def test_many_restarts_at_once_leave_one_process(services: Services) -> None:
    """process-compose ConcurrentRestartRaceCondition."""
    services.boot('[service.one]\ncommand = "sleep 11223"\n')
    services.becomes("one", "running")
    commands = [services.box.agent_command("restart", "one") for _ in range(8)]
    processes = [subprocess.Popen(command, env=environ) for command, environ in commands]
    assert [process.wait(30) for process in processes] == [0] * 8
    services.becomes("one", "running")
    assert len(running(services, "sleep 11223")) == 1


APP = """
import signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("app: up", flush=True)
signal.sigwait([signal.SIGTERM])
print("app: asked to end", flush=True)
time.sleep(1.5)
print("app: ended in order", flush=True)
"""


@pytest.mark.parametrize("how", ["by hand", "with the machine"])
def test_a_program_behind_a_shell_has_the_whole_stop_timeout(services: Services, how: str) -> None:
    """The shell exits at SIGTERM at once; the program that it started needs longer."""
    services.boot(
        f"""
        [service.app]
        command = ["sh", "-c", "{sys.executable} -c \\"$0\\" & wait", '''{APP}''']
        stop_timeout = "9s"
        """
    )
    services.box.event("service.said", service="app", line="app: up")
    if how == "by hand":
        assert services.box.agent("stop", "app").returncode == 0
    else:
        assert services.box.stop() == 0
    services.box.event("service.said", service="app", line="app: ended in order")


def test_what_a_shell_leaves_behind_and_will_not_end_is_killed(services: Services) -> None:
    services.boot(
        """
        [service.stubborn]
        command = ["sh", "-c", "(trap '' TERM; while :; do sleep 4321; done) & wait"]
        stop_timeout = "1s"
        """
    )
    services.becomes("stubborn", "running")
    until(lambda: running(services, "sleep 4321"), "it runs")
    began = time.monotonic()
    assert services.box.agent("stop", "stubborn").returncode == 0
    assert time.monotonic() - began >= 1
    until(lambda: not running(services, "sleep 4321"), "its end")


LEAVES = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execvpe("sleep", ["sleep", "5432"], {environ})
    os._exit(0)
os.wait()
time.sleep(1000)
"""


@pytest.mark.parametrize(
    ("environ", "groups"), [("os.environ", "/nowhere"), ('{"PATH": os.environ["PATH"]}', "")],
    ids=["known by its mark", "known by its group"],
)  # fmt: skip
@pytest.mark.attack
def test_what_leaves_its_group_session_and_parent_still_ends_with_the_service(
    services: Services, environ: str, groups: str
) -> None:
    program = LEAVES.format(environ=environ)
    services.write(f"[service.leaves]\ncommand = ['{sys.executable}', '-c', '''{program}''']\n")
    no_groups = "mount -t tmpfs none /sys/fs/cgroup"
    services.box.boot(
        {"SWARM_SERVICES_DIR": str(services.folder)}, before=no_groups if groups else ""
    )
    services.becomes("leaves", "running")

    def count() -> int:
        return len(running(services, "sleep 5432"))

    until(lambda: count() == 1, "the process that left")
    for _ in range(3):
        assert services.box.agent("restart", "leaves").returncode == 0
        services.becomes("leaves", "running")
        until(lambda: count() == 1, "exactly one")
    assert services.box.agent("stop", "leaves").returncode == 0
    assert services.becomes("leaves", "inactive")
    assert count() == 0


@pytest.mark.root
@pytest.mark.attack
def test_who_only_says_that_it_belongs_to_a_service_does_not_end_with_it(
    services: Services,
) -> None:
    """The environment variable can be imitated; if cgroups are available, only they count."""
    services.boot('[service.plain]\ncommand = "sleep 1000"\n')
    services.becomes("plain", "running")
    imitate = "SWARM_SERVICE=plain setsid -f sleep 5433 >/dev/null 2>&1"
    assert services.box.ssh(imitate).returncode == 0
    until(lambda: running(services, "sleep 5433"), "the imitator")
    assert services.box.agent("restart", "plain").returncode == 0
    assert services.becomes("plain", "running")
    assert running(services, "sleep 5433")


@pytest.mark.parametrize("then", [["reload"], ["stop", "leaves"]], ids=["reload", "stop"])
@pytest.mark.attack
def test_what_a_leader_has_left_is_not_forgotten(services: Services, then: list[str]) -> None:
    """The leader has exited, and the rest is still stopping when the next order comes."""
    # Ignored before the fork: SIGTERM comes as soon as the leader has exited.
    program = "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\n"
    program += "if os.fork() == 0:\n    time.sleep(3456)"
    services.boot(
        f"""
        [service.leaves]
        command = ["{sys.executable}", "-c", '''{program}''']
        stop_timeout = "8s"
        restart = "never"
        """
    )
    until(lambda: len(running(services, "sleep(3456)")) == 1, "the end of the leader")
    assert services.box.agent(*then).returncode == 0
    stopped = then[0] == "stop"
    assert len(running(services, "sleep(3456)")) == (0 if stopped else 1)
    until(lambda: not running(services, "sleep(3456)"), "its end")
    services.becomes("leaves", "inactive" if stopped else "done")
