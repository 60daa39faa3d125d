import json
import subprocess
import sys

import pytest

from agent import words
from agent.events import SshdSaid, Trouble
from agent.log import as_record, timestamp

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
        assert json.loads(result.stdout)["line"].startswith("a\nb \x1b[31m")


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
