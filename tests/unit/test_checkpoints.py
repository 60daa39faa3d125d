"""When a checkpoint is due, which ones are kept, and how names and notes are stored."""

import asyncio
import math
import random
import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.checkpoints import policy, room, tags
from agent.checkpoints.faults import Fault, ResticError, fault_of
from agent.checkpoints.place import plain, read_changes
from agent.checkpoints.policy import AFTER_START, Cause, Past
from agent.checkpoints.restic import escape
from agent.checkpoints.running import why
from agent.checkpoints.store import patterns
from agent.settings import units
from agent.settings.units import Keep

HOUR, DAY = 3600.0, 86400.0
KEEP = Keep(24, 7, 4)


@dataclass(frozen=True)
class Made:
    id: str
    at: float
    cause: str = Cause.HOURLY.value


def made(*ages: float, now: float = 1_800_000_000.0) -> list[Made]:
    return [Made(f"{number}", now - age) for number, age in enumerate(ages)]


@pytest.mark.parametrize(
    ("past", "active", "now", "due"),
    [
        (Past(0.0), 1.0, AFTER_START - 1, False),  # never at boot
        (Past(0.0), 1.0, AFTER_START, True),
        (Past(0.0, made=1000.0), 2000.0, 1000 + HOUR - 1, False),
        (Past(0.0, made=1000.0), 2000.0, 1000 + HOUR, True),
        (Past(0.0, made=1000.0), 999.0, 1000 + 9 * HOUR, False),  # no activity since
        (Past(0.0, made=1000.0, failed=5000.0), 2000.0, 5000 + policy.RETRY - 1, False),
        (Past(0.0, made=1000.0, failed=5000.0), 2000.0, 5000 + policy.RETRY, True),
    ],
)
def test_hourly_checkpoints_follow_work(past: Past, active: float, now: float, due: bool) -> None:
    assert policy.is_due(past, active, HOUR, now) is due
    assert not policy.is_due(past, active, None, now), "switched off"


def test_a_turn_begins_with_a_checkpoint_of_at_most_ten_minutes() -> None:
    assert policy.is_due_before_turn(Past(0.0), 1.0)
    assert not policy.is_due_before_turn(Past(0.0, made=100.0), 100.0 + 600)
    assert policy.is_due_before_turn(Past(0.0, made=100.0), 100.0 + 601)


def test_a_sleep_begins_with_a_checkpoint_of_what_was_done() -> None:
    assert policy.is_due_before_sleep(Past(0.0), 1.0)
    assert policy.is_due_before_sleep(Past(0.0, made=100.0), 101.0)
    assert not policy.is_due_before_sleep(Past(0.0, made=100.0), 100.0)
    assert not policy.is_due_before_sleep(Past(0.0), -math.inf), "a scan woke it"


def test_a_repository_is_checked_once_a_week_whatever_the_clock_did() -> None:
    now = 1_800_000_000.0
    assert policy.is_check_due(0.0, now), "never yet"
    assert not policy.is_check_due(now - 7 * DAY, now)
    assert policy.is_check_due(now - 7 * DAY - 1, now)
    assert policy.is_check_due(now + 1, now), "the clock was set back: it must not wait for years"


def test_a_week_without_the_other_repository_is_reported_daily_and_costs_little() -> None:
    """Tries are at most an hour apart: the first one after an outage comes soon."""
    began = 1_800_000_000.0
    made_at = [began - 10, *(began + hour * HOUR for hour in range(7 * 24))]
    uploaded, now, tries, days = began - 10, began, 0, []
    while now < began + 7 * DAY + HOUR:
        tries += 1
        there = [at for at in made_at if at <= now]
        days.append(policy.days_behind(there, uploaded, now))
        delay = policy.retry_in(tries)
        assert 30.0 <= delay <= HOUR
        now += delay
    assert sorted(set(days)) == list(range(8))
    assert tries < 7 * 24 + 10
    assert policy.days_behind(made_at, made_at[-1], now) == 0, "all of it is there"


def test_a_checkpoint_from_the_future_counts_as_none() -> None:
    """The wall clock was set back: the next one must not wait for years."""
    assert policy.made_before(2000.0, 1000.0, 50.0) is None
    assert policy.made_before(900.0, 1000.0, 50.0) == -50.0


def test_no_checkpoint_for_a_day_is_told_only_while_something_works() -> None:
    past = Past(0.0, made=100.0)
    assert policy.is_stale(past, 200.0, 100 + DAY + 1)
    assert not policy.is_stale(past, 99.0, 100 + DAY + 1)
    assert not policy.is_stale(past, 200.0, 100 + DAY)


def test_the_latest_of_each_hour_day_and_week_is_kept() -> None:
    now = 1_800_000_000.0 // DAY * DAY + 12 * HOUR
    quarters = [age * 900.0 for age in range(4 * 24 * 60, -1, -1)]  # 60 days, four an hour
    checkpoints = made(*quarters, now=now)
    gone = set(policy.surplus(checkpoints, KEEP))
    kept = [each.at for each in checkpoints if each.id not in gone]
    assert kept[-1] == now
    hours = {int(at // HOUR) for at in kept}
    assert {int(now // HOUR) - age for age in range(24)} <= hours
    days = {int(at // DAY) for at in kept}
    assert {int(now // DAY) - age for age in range(7)} <= days
    assert len({time.strftime("%G-%V", time.gmtime(at)) for at in kept}) == 4
    assert len(kept) <= 24 + 7 + 4


@given(
    st.lists(st.floats(0, 400 * DAY), max_size=60),
    st.integers(0, 30),
    st.integers(0, 10),
    st.integers(0, 6),
)
def test_the_newest_stays_whatever_the_clock_did(
    ages: list[float], hourly: int, daily: int, weekly: int
) -> None:
    checkpoints = made(*ages)
    gone = policy.surplus(checkpoints, Keep(hourly, daily, weekly))
    assert not checkpoints or checkpoints[-1].id not in gone
    left = [each for each in checkpoints if each.id not in set(gone)]
    assert policy.surplus(left, Keep(hourly, daily, weekly)) == [], "what is kept once is kept"


def test_those_made_by_hand_outlive_the_hour() -> None:
    checkpoints = [Made(f"{n}", n * 60.0, Cause.HAND.value) for n in range(30)]
    checkpoints += [Made(f"by itself {n}", 1800.0 + n * 60) for n in range(20)]
    gone = policy.surplus(checkpoints, Keep(24, 7, 4))
    assert gone == [f"{n}" for n in range(6)] + [f"by itself {n}" for n in range(19)]


def test_noise_pushes_out_no_checkpoint_that_was_there_a_day_ago() -> None:
    """An agent that fills the share with new checkpoints cannot remove the old one."""
    now = 1_800_000_000.0
    ages = [40 * DAY, 3 * DAY, 20 * HOUR, 3 * HOUR, 2 * HOUR, 60.0]
    assert policy.evictable(made(*ages, now=now), now) == ["0", "1", "3", "4"]
    assert policy.evictable(made(60.0, now=now), now) == []


@given(st.text(max_size=400), st.sampled_from(Cause))
def test_notes_travel_as_tags(note: str, cause: Cause) -> None:
    written = tags.write(cause, note)
    assert all("," not in tag and "\n" not in tag for tag in written)
    assert tags.read(written) == (cause.value, tags.clean(note))


def test_times_of_restic_are_understood() -> None:
    assert tags.unix_time("2026-11-25T18:08:08.229091014Z") == pytest.approx(1795630088.229091)
    assert tags.unix_time("2026-11-25T19:08:08.229091014+01:00") == pytest.approx(1795630088.229091)
    assert tags.unix_time("2026-11-25T18:08:08Z") == 1795630088
    assert tags.unix_time("yesterday") == 0.0


@given(st.binary(min_size=1, max_size=40))
def test_any_name_is_known_again(name: bytes) -> None:
    """Names of any bytes, as in restic's JSON: one U+FFFD for each invalid byte."""
    name = name.replace(b"\0", b"x")
    as_go = "".join(
        chr(0xFFFD) if "\udc80" <= letter <= "\udcff" else letter
        for letter in name.decode("utf-8", "surrogateescape")
    )
    assert plain(name) in read_changes(f"M {as_go}\0".encode())


def test_patterns_match_one_path_only() -> None:
    assert escape(b"/w/a*[b]?\\") == b"/w/a\\*\\[b\\]\\?\\\\"


def test_the_ignore_file_counts_from_the_volume_and_replaces_no_variable() -> None:
    assert patterns("# no\n\n/build\n*.iso\n$HOME/x\n", "/v") == ["/v/build", "*.iso", "$$HOME/x"]


def test_names_of_files_decide_no_fault() -> None:
    """restic's messages contain paths, which the account chooses."""
    said = "ignoring error for /w/no space left on device: x\nFatal: unable to open: Load(<a>): x"
    assert fault_of(1, said) is Fault.OTHER
    assert fault_of(1, "Fatal: wrong password or no key found") is Fault.KEY
    assert fault_of(11, "Fatal: x") is Fault.LOCKED
    assert fault_of(1, "Fatal: unable to open repository: Access Denied.") is Fault.DENIED
    assert fault_of(1, "Fatal: server response unexpected: 401 Unauthorized (401)") is Fault.DENIED
    assert fault_of(130, "") is Fault.GIVEN_UP


def test_why_restic_ends_is_read_in_json_too() -> None:
    """restic 0.18 with --json. Messages about files decide nothing."""
    end = (
        b'{"message_type":"exit_error","code":1,"message":"Fatal: config or key 1a78 is damaged: '
        b'ciphertext verification failed\\nIs there a repository?"}'
    )
    said = why(end).decode()
    assert said == "Fatal: config or key 1a78 is damaged: ciphertext verification failed"
    assert fault_of(1, said) is Fault.DAMAGED
    file = b'{"message_type":"error","error":{"message":"Fatal: no space left"},"item":"/w/a"}'
    for other in (file, b'{"message_type":"status"}', b"{", b'{"message":1}'):
        assert why(other) == b""


def test_settings_of_checkpoints() -> None:
    assert units.keep("hourly 24, daily 7, weekly 4") == KEEP
    assert units.share("25%") == 0.25
    for text in ("hourly 1", "0%", "100%", "", "25"):
        with pytest.raises(ValueError, match=r"such as|between"):
            (units.share if "%" in text or text.isdigit() else units.keep)(text)
    assert units.repository("s3:https://fly.storage.tigris.dev/bucket")
    for text in ("bucket", "rest:https://user:word@host/"):
        with pytest.raises(ValueError, match="repository"):
            units.repository(text)


def test_order_is_that_of_making() -> None:
    """Dates that jump do not make an old checkpoint the newest."""
    now = 1_800_000_000.0
    checkpoints = made(*random.Random(1).sample(range(10**6), 50), now=now)
    assert checkpoints[-1].id not in policy.evictable(checkpoints, now)


def test_a_checkpoint_is_given_up_when_only_the_reserve_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = [True, True, False]
    monkeypatch.setattr(room, "TICK", 0.001)
    monkeypatch.setattr(room, "is_left", lambda _: left.pop(0))
    cancelled = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def run() -> None:
        async with asyncio.timeout(60):
            await room.while_left("/volume", work())

    with pytest.raises(ResticError) as error:
        asyncio.run(run())
    assert error.value.fault is Fault.FULL
    assert cancelled and not left
