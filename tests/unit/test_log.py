import array
import fcntl
import json
import os
import select
import subprocess
import sys
import termios

import pytest

from agent import words
from agent.events import Notice, ServiceSaid, SshdSaid, Trouble
from agent.log import CAPACITY, CAPACITY_BYTES, Log, as_record, timestamp
from tests.support import until

WRITE = """
import sys
from agent.events import SshdSaid
from agent.log import Log
log = Log(sys.argv[1], "debug", 65536)
log.write(SshdSaid(session="x", line="a\\nb \\x1b[31m \\u2028 \\ud800 " + "y" * 100_000))
log.close()
"""


@pytest.mark.parametrize("style", ["json", "human"])
def test_odd_and_long_lines_stay_one_line(style: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WRITE, style], capture_output=True, check=True, timeout=30
    )
    assert result.stdout.count(b"\n") == 1
    assert b"\x1b[31m" not in result.stdout
    assert b"(cut)" in result.stdout or style == "human"
    assert len(result.stdout) < 80_000
    if style == "json":
        assert json.loads(result.stdout)["line"].startswith("a\nb \\x1b[31m")


def test_stdout_that_nobody_reads_does_not_block_the_end() -> None:
    script = """
import os, sys
from agent.events import SshdSaid
from agent.log import Log
log = Log("json", "debug", 65536)
for _ in range(30_000):
    log.write(SshdSaid(session="x", line="y" * 1000))
log.close(timeout=0.5)
sys.stderr.write("ended")
os._exit(0)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert process.stderr.read() == b"ended"
    process.communicate()


def written(script: str, **environ: str) -> bytes:
    """The log's output to a pipe; the script exits the process."""
    head = (
        "from agent.events import *\nfrom agent.log import Log\nlog = Log('json', 'debug', 65536)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", head + script],
        env=dict(os.environ) | environ,
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout


@pytest.mark.attack
def test_a_shared_pipe_that_became_non_blocking_loses_no_line() -> None:
    """Node sets O_NONBLOCK on the stdout that it shares with us; then the reader pauses."""
    script = """
import os, sys
from agent.events import SshdSaid
from agent.log import Log
os.set_blocking(1, False)
log = Log("json", "debug", 65536)
for number in range(500):
    log.write(SshdSaid(session=str(number), line="y" * 1000))
log.start()
sys.stderr.write("full")
sys.stderr.flush()
log.close(timeout=60)
os._exit(0)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.read(4) == b"full"
        assert select.select([process.stdout], [], [], 30)[0]
        pipe_is_full(process.stdout.fileno())
        lines = process.stdout.read().splitlines()
    assert [json.loads(line)["session"] for line in lines] == [str(n) for n in range(500)]


def pipe_is_full(descriptor: int) -> None:
    """Wait until the other side cannot write any more."""

    def waiting() -> int:
        count = array.array("i", [0])
        fcntl.ioctl(descriptor, termios.FIONREAD, count)
        return count[0]

    seen = [0]

    def full() -> bool:
        seen.append(waiting())
        return seen[-1] > 0 and len(set(seen[-25:])) == 1

    until(full, "a full pipe")


@pytest.mark.attack
def test_a_locale_without_utf_8_costs_no_line() -> None:
    # JSON may escape letters as ASCII; for people they are unchanged.
    script = "log = Log('human', 'debug', 65536); log.write(Notice(part='key', notice='Zo\\xeb'))"
    locale = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    [line] = written(f"{script}; log.close()", **locale).splitlines()
    assert "Zoë" in line.decode("utf-8")


@pytest.mark.attack
def test_an_event_that_cannot_be_shown_is_a_line_that_says_so_and_the_next_one_is_written() -> None:
    script = """
broken = Notice(part="a", notice="b")
del broken.__dict__["notice"]
log.write(broken)
log.write(Notice(part="c", notice="d"))
log.close()
"""
    first, second = written(script).splitlines()
    assert b"agent.notice" in first
    assert json.loads(second)["part"] == "c"


def test_lines_that_stdout_refuses_are_counted_and_writing_goes_on_later() -> None:
    script = """
import os, sys
away = os.dup(1)
os.close(1)
log.write(Notice(part="lost", notice="x"))
log.start()
while not log.lost:
    pass
os.dup2(away, 1)
log.write(Notice(part="kept", notice="y"))
log.close()
"""
    records = [json.loads(line) for line in written(script).splitlines()]
    assert {record.get("part") for record in records} == {"kept", None}
    assert sum(record["lines"] for record in records if record["event"] == "log.dropped") == 1


@pytest.mark.attack
def test_waiting_lines_are_bounded_in_bytes() -> None:
    log = Log("json", "debug", 65536)
    for _ in range(2000):
        log.write(SshdSaid(session="x", line="y" * (64 << 10)))
    assert log.lost > 0
    assert (2000 - log.lost) * (64 << 10) <= CAPACITY_BYTES


@pytest.mark.attack
@pytest.mark.parametrize("line", ["x", "x" * (64 << 10)], ids=["short", "long"])
def test_a_flooding_service_hides_no_other_event(line: str) -> None:
    log = Log("json", "info", 1 << 20)
    for _ in range(CAPACITY):
        log.write(ServiceSaid(service="flood", stream="stdout", line=line))
    lost = log.lost
    for _ in range(100):
        log.write(Notice(part="gate", notice="seen"))
    assert 0 < lost == log.lost


@pytest.mark.attack
def test_a_log_that_is_not_read_is_behind() -> None:
    script = """
import agent.log, os, sys
agent.log.BEHIND = 0.0
for _ in range(200):
    log.write(Notice(part="x", notice="y" * 1000))
log.start()
while not log.behind:
    pass
sys.stderr.write("behind")
os._exit(0)
"""
    head = (
        "from agent.events import *\nfrom agent.log import Log\nlog = Log('json', 'debug', 65536)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", head + script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert process.stderr.read() == b"behind"
    process.communicate()


@pytest.mark.attack
def test_an_event_that_lacks_a_field_or_has_one_too_many_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="notice"):
        Notice(part="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="more"):
        Notice(part="x", notice="y", more="z")  # type: ignore[call-arg]


def test_levels_below_the_threshold_are_not_written() -> None:
    script = WRITE.replace('"debug"', '"info"')
    result = subprocess.run(
        [sys.executable, "-c", script, "json"], capture_output=True, check=True, timeout=30
    )
    assert result.stdout == b""


def test_record_begins_with_time_level_and_name() -> None:
    record = as_record(Trouble(part="keys", problem="none", at=0.25), 65536)
    assert list(record.items())[:3] == [
        ("timestamp", "1970-01-01T00:00:00.250Z"),
        ("level", "error"),
        ("event", "agent.problem"),
    ]
    assert timestamp(1.9999) == "1970-01-01T00:00:01.999Z"
    assert SshdSaid(session="", line="").level == "debug"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.9, "1 min"),
        (90, "1 min 30 s"),
        (60, "1 min"),
        (7500, "2 h 05 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5120.0 GiB")]
)
def test_sizes_with_units(count: int, text: str) -> None:
    assert words.size(count) == text


def test_tables_align() -> None:
    table = words.table(("a", "bb"), [("ccc", "d"), ("e", "f")])
    assert table == "a    bb\nccc  d\ne    f"


def test_of_errors_in_a_group_the_first_is_named() -> None:
    inner = ModuleNotFoundError("No module named 'h11'")
    group = ExceptionGroup("unhandled errors in a TaskGroup", [ExceptionGroup("a", [inner])])
    assert words.error(group) == "ModuleNotFoundError: No module named 'h11'"
    assert words.error(inner) == words.error(group)


def test_what_the_log_does_not_need_is_not_read_at_boot() -> None:
    """rich is the laptop's, installed beside the agent: structlog would read it for tracebacks."""
    script = """
import sys
from agent.log import Log
log = Log("json", "info", 1000)
log.start()
log.close()
print("structlog" in sys.modules, "rich" in sys.modules)
import rich
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True False\n", "")
