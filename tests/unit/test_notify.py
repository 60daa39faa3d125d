"""Which news is sent to people outside, when, and how often."""

import pickle
from datetime import UTC, datetime

import pytest

from agent.events import (
    BanStarted,
    CodingAgentChanged,
    Event,
    Reexecuted,
    SessionOpened,
    SleepBegan,
    SleepWarned,
)
from agent.notify.news import STORM, Known, News, NewsDesk
from agent.notify.outbox import LETTERS, LIFETIME, WINDOW, Kept, Outbox
from agent.notify.quiet import QuietHours

WAIT, DONE = 30.0, 300.0


def coding(state: str, need: str = "", agent: str = "claude-1", at: float = 0.0) -> Event:
    return CodingAgentChanged(
        at=at,
        agent=agent,
        tool="claude",
        folder="/workspace/secret",
        state=state,
        need=need,
        because="rate_limit",
        previous="",
        seconds=0.0,
        works=False,
    )


def login(client: str, fingerprint: str = "SHA256:a") -> Event:
    return SessionOpened(
        session="1", client=client, user="dev", key="ann", fingerprint=fingerprint, pid=1
    )


@pytest.fixture
def desk() -> NewsDesk:
    return NewsDesk(Known())


def says(news: list[News]) -> list[str]:
    return [each.says for each in news]


def test_who_waits_for_a_person_is_told_once_and_not_too_soon(desk: NewsDesk) -> None:
    assert desk.hear(coding("waiting", "a permission"), 100.0, DONE) == []
    assert desk.due(WAIT) == 130.0
    assert desk.waits(129.9, WAIT) == []
    assert says(desk.waits(130.0, WAIT)) == ["claude-1 waits for a permission"]
    assert desk.waits(200.0, WAIT) == []
    assert desk.due(WAIT) is None


def test_what_was_answered_in_time_is_not_told(desk: NewsDesk) -> None:
    desk.hear(coding("waiting", "an answer"), 100.0, DONE)
    desk.hear(coding("working"), 120.0, DONE)
    assert desk.waits(200.0, WAIT) == []


def test_a_long_turn_is_told_at_its_end_whatever_it_waited_for_meanwhile(desk: NewsDesk) -> None:
    desk.hear(coding("working"), 0.0, DONE)
    desk.hear(coding("waiting", "a permission"), 200.0, DONE)
    desk.hear(coding("working"), 210.0, DONE)
    news = desk.hear(coding("waiting", "the next prompt"), 301.0, DONE)
    assert says(news) == ["claude-1 is done after 5 min 01 s"]


def test_a_short_turn_is_not_told(desk: NewsDesk) -> None:
    desk.hear(coding("working"), 0.0, DONE)
    assert desk.hear(coding("waiting", "the next prompt"), 299.0, DONE) == []


def test_a_failure_is_told_at_once(desk: NewsDesk) -> None:
    assert says(desk.hear(coding("failed"), 1.0, DONE)) == ["claude-1 has failed: rate_limit"]


def test_sleep_is_announced_only_to_who_is_waited_for(desk: NewsDesk) -> None:
    warned = SleepWarned(because="idle", seconds=120.0, terminals=0)
    assert desk.hear(warned, 1.0, DONE) == []
    desk.hear(coding("waiting", "an answer"), 2.0, DONE)
    assert says(desk.hear(warned, 3.0, DONE)) == [
        "the machine sleeps in 2 min, and claude-1 waits for you"
    ]


def test_sleep_and_re_execution_are_told(desk: NewsDesk) -> None:
    slept = SleepBegan(reason="idle", because="idle for 30 min", mode="stop", awake=1.0)
    assert says(desk.hear(slept, 1.0, DONE)) == ["the machine goes to sleep: idle for 30 min"]
    again = Reexecuted(failures=1, reloads=0, connections=0, services=0)
    assert "re-executed" in says(desk.hear(again, 1.0, DONE))[0]


def test_bans_are_told_when_they_are_a_storm_and_not_again_soon(desk: NewsDesk) -> None:
    ban = BanStarted(
        network="203.0.113.7", seconds=600.0, times=1, reason="x", cut=0, dry_run=False
    )
    told = [len(desk.hear(ban, float(n), DONE)) for n in range(3 * STORM)]
    assert sum(told) == 1
    assert told[STORM - 1] == 1
    slow = [desk.hear(ban, 10_000.0 + 60.0 * n, DONE) for n in range(STORM)]
    assert not any(slow)


def test_a_key_from_a_new_network_is_told_and_outlives_the_machine(desk: NewsDesk) -> None:
    assert desk.hear(login("203.0.113.7"), 1.0, DONE) == [], "the machine knew nobody"
    assert desk.hear(login("203.0.113.99"), 2.0, DONE) == [], "the same network"
    news = desk.hear(login("198.51.100.1"), 3.0, DONE)
    assert [each.detail for each in news] == ["ann from 198.51.100.1"]
    assert "198.51" not in news[0].says
    later = NewsDesk(desk.known)
    assert later.hear(login("198.51.100.2"), 4.0, DONE) == []
    assert later.hear(login("2001:db8::1"), 5.0, DONE)
    assert later.hear(login("2001:db8:0:ffff::1"), 6.0, DONE) == [], "the same /48"


def test_budget_and_volume_are_told_once(desk: NewsDesk) -> None:
    assert desk.readings(0.79, "2026-11", 0.89) == []
    assert len(desk.readings(0.81, "2026-11", 0.91)) == 2
    assert desk.readings(0.95, "2026-11", 0.99) == []
    assert len(desk.readings(0.85, "2026-12", 0.86)) == 1, "another month, the volume as full"
    assert desk.readings(0.85, "2026-12", 0.80) == []
    assert says(desk.readings(0.85, "2026-12", 0.92)) == ["the volume is 92% full"]


def news(number: int) -> News:
    return News("failed", f"key {number}", f"news {number}", "/a/path")


def letters(outbox: Outbox, now: float, *, quiet: bool = False) -> list[str]:
    outbox.seal(now, quiet=quiet, details=False)
    ready = outbox.ready(now)
    for each in ready:
        outbox.sent(each)
    return [each.says for each in ready]


def test_nothing_is_told_twice() -> None:
    outbox = Outbox(Kept())
    outbox.add([news(1), news(1)], 0.0)
    assert letters(outbox, 0.0) == ["news 1"]
    outbox = Outbox(outbox.kept())
    outbox.add([news(1)], 100.0)
    assert letters(outbox, 100.0) == []


def test_a_flood_becomes_few_letters_that_sum_it_up() -> None:
    outbox = Outbox(Kept())
    sent = []
    for second in range(int(WINDOW)):
        outbox.add([news(second)], float(second))
        sent += letters(outbox, float(second))
    assert len(sent) == LETTERS
    assert outbox.due(WINDOW - 1) == WINDOW
    last = letters(outbox, WINDOW)
    assert last[0].splitlines()[0] == f"news {LETTERS}"
    assert last[0].endswith(f"and {int(WINDOW) - LETTERS - 8} more")


def test_quiet_hours_keep_what_happened_for_afterwards() -> None:
    outbox = Outbox(Kept())
    outbox.add([news(1)], 0.0)
    outbox.add([news(2)], 10.0)
    assert letters(outbox, 20.0, quiet=True) == []
    assert letters(outbox, 30.0) == ["news 1\nnews 2"]


def test_what_fails_is_tried_again_ever_more_seldom_by_those_who_have_not_got_it() -> None:
    outbox = Outbox(Kept())
    outbox.add([news(1)], 0.0)
    outbox.seal(0.0, quiet=False, details=False)
    now, pauses = 0.0, []
    while ready := outbox.ready(now):
        outbox.failed(ready[0], [7], now)
        outbox = Outbox(outbox.kept())  # over a sleep
        due = outbox.due(now)
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses[:4] == [30.0, 60.0, 120.0, 240.0]
    assert max(pauses) == 3600.0
    assert now >= LIFETIME


def test_details_leave_only_when_asked_for() -> None:
    for details, says_ in ((False, "news 1"), (True, "news 1 (/a/path)")):
        outbox = Outbox(Kept())
        outbox.add([news(1)], 0.0)
        outbox.seal(0.0, quiet=False, details=details)
        assert [each.says for each in outbox.ready(0.0)] == [says_]


def at(hour: int) -> float:
    return datetime(2026, 11, 25, hour, 30, tzinfo=UTC).timestamp()


def test_quiet_hours_go_over_midnight() -> None:
    night, noon = QuietHours.parse("22:00-07:00"), QuietHours.parse("12:00-13:00")
    assert [night.hold(at(hour)) for hour in (21, 22, 23, 3, 6, 7)] == [
        False,
        True,
        True,
        True,
        True,
        False,
    ]
    assert [noon.hold(at(hour)) for hour in (11, 12, 13)] == [False, True, False]


def test_quiet_hours_of_a_zone() -> None:
    assert not QuietHours.parse("22:00-07:00 Europe/Berlin").hold(at(20))
    assert QuietHours.parse("22:00-07:00 Europe/Berlin").hold(at(21))


@pytest.mark.parametrize("text", ["22-7", "25:00-07:00", "22:00-07:00 Nowhere/Land", "../x"])
def test_other_quiet_hours_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="22:00-07:00"):
        QuietHours.parse(text)


def test_the_desk_can_be_put_down_and_taken_up() -> None:
    desk = NewsDesk(Known(budget_month="2026-11"))
    desk.hear(coding("working"), 0.0, DONE)
    again = pickle.loads(pickle.dumps(desk))
    assert again.hear(coding("waiting", "the next prompt"), 400.0, DONE)
