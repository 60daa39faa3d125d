from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.idle.policy import Activity, Awake, Cause, Seen, Sleep, Warn, decide, held, sleeps_at
from agent.settings import Settings, load

WOKE = 1000.0
TIMEOUT, WARNING, GRACE, WINDOW = 1800.0, 120.0, 60.0, 180.0


def settings(**changed: object) -> Settings:
    return replace(load({"SWARM_SLEEP_MODE": "stop"}, privileged=True).settings, **changed)  # type: ignore[arg-type]


def seen(at: float = WOKE, **changed: object) -> Seen:
    base = Seen(woke=WOKE, latest=Activity("cpu", at, "pid 7 cc1: 98% of a core"))
    return replace(base, **changed)  # type: ignore[arg-type]


def test_awake_until_the_timeout_has_passed() -> None:
    decision = decide(seen(), settings(), WOKE + TIMEOUT - 0.001)
    assert decision == Awake(WOKE + TIMEOUT, WOKE + TIMEOUT + WARNING, "pid 7 cc1: 98% of a core")


def test_warned_at_the_timeout_and_asleep_after_the_warning() -> None:
    due = WOKE + TIMEOUT
    assert decide(seen(), settings(), due) == Warn(due + WARNING, Cause.IDLE, "idle for 30 min")
    warned = seen(warned=due)
    assert decide(warned, settings(), due + WARNING - 0.001) == Warn(
        due + WARNING, Cause.IDLE, "idle for 30 min"
    )
    assert decide(warned, settings(), due + WARNING) == Sleep(Cause.IDLE, "idle for 30 min")


def test_a_late_warning_is_given_its_whole_time() -> None:
    late = WOKE + TIMEOUT + 1000
    assert decide(seen(), settings(), late) == Warn(late + WARNING, Cause.IDLE, "idle for 30 min")
    assert decide(seen(warned=late), settings(), late + 1) == Warn(
        late + WARNING, Cause.IDLE, "idle for 30 min"
    )


def test_activity_after_the_warning_starts_the_count_again() -> None:
    warned = WOKE + TIMEOUT
    active = seen(at=warned + 1, warned=warned)
    assert isinstance(decide(active, settings(), warned + WARNING), Awake)


def test_boot_grace_holds_whatever_the_timeout() -> None:
    short = settings(idle_timeout=1.0)
    assert isinstance(decide(seen(), short, WOKE + GRACE - 0.001), Awake)
    assert isinstance(decide(seen(), short, WOKE + GRACE), Warn)


def test_a_wake_by_a_connection_without_a_login_lasts_one_window_and_needs_no_warning() -> None:
    scanned = seen(connections=True)
    assert isinstance(decide(scanned, settings(), WOKE + WINDOW - 0.001), Awake)
    decision = decide(scanned, settings(), WOKE + WINDOW)
    assert decision == Sleep(Cause.SCAN, "woken by a connection, and nobody logged in within 3 min")


def test_activity_in_the_window_moves_it_on() -> None:
    busy = seen(at=WOKE + 100, connections=True)
    assert isinstance(decide(busy, settings(), WOKE + 100 + WINDOW - 0.001), Awake)
    assert isinstance(decide(busy, settings(), WOKE + 100 + WINDOW), Sleep)


@pytest.mark.parametrize("changed", [{"login": True}, {"connections": False}])
def test_the_window_is_only_for_connections_without_a_login(changed: dict[str, bool]) -> None:
    looks = replace(seen(connections=True), **changed)  # type: ignore[arg-type]
    assert isinstance(decide(looks, settings(), WOKE + WINDOW), Awake)


def test_a_window_that_is_off_leaves_the_timeout() -> None:
    scanned = seen(connections=True)
    assert isinstance(decide(scanned, settings(wake_window=None), WOKE + WINDOW), Awake)


def test_the_limit_holds_whatever_is_active() -> None:
    limited = settings(max_awake=3600.0)
    busy = seen(at=WOKE + 3599, warned=WOKE + 3480, login=True)
    assert isinstance(decide(busy, limited, WOKE + 3479), Awake)
    assert isinstance(decide(busy, limited, WOKE + 3480), Warn)
    decision = decide(busy, limited, WOKE + 3600)
    assert decision == Sleep(Cause.LIMIT, "awake for 1 h 00 min, the limit (SWARM_MAX_AWAKE)")


def test_an_order_by_hand_holds_whatever_is_active() -> None:
    busy = seen(at=WOKE + 500, ordered=WOKE + 500)
    assert decide(busy, settings(), WOKE + 500) == Warn(
        WOKE + 500 + WARNING, Cause.HAND, "asked for by hand"
    )


def test_sleep_by_hand_comes_after_its_own_warning() -> None:
    ordered = seen(at=WOKE, ordered=WOKE + 500, warned=WOKE + 500)
    assert sleeps_at(decide(ordered, settings(), WOKE + 501), WOKE + 501) == WOKE + 500 + WARNING
    now = WOKE + 500 + WARNING
    assert decide(ordered, settings(), now) == Sleep(Cause.HAND, "asked for by hand")
    assert sleeps_at(Sleep(Cause.HAND, ""), now) == now


def test_a_warning_of_before_does_not_shorten_the_next() -> None:
    looks = seen(at=WOKE + 1000, warned=WOKE + 10)
    due = WOKE + 1000 + TIMEOUT
    assert decide(looks, settings(), due) == Warn(due + WARNING, Cause.IDLE, "idle for 30 min")


def test_a_sleep_that_comes_late_without_a_warning_comes_at_once() -> None:
    late = WOKE + WINDOW + 50
    assert isinstance(decide(seen(connections=True), settings(), late), Sleep)


def test_awake_tells_when_a_scan_would_sleep() -> None:
    due = WOKE + WINDOW
    because = "pid 7 cc1: 98% of a core"
    assert decide(seen(connections=True), settings(), WOKE) == Awake(due, due, because)


def test_a_window_longer_than_the_timeout_ends_with_it() -> None:
    short = settings(idle_timeout=100.0)
    decision = decide(seen(connections=True), short, WOKE + 100)
    because = "woken by a connection, and nobody logged in within 1 min 40 s"
    assert decision == Sleep(Cause.SCAN, because)


def test_grace_holds_for_a_scan_and_for_the_limit() -> None:
    scanned = decide(seen(connections=True), settings(wake_window=1.0), WOKE + GRACE - 0.001)
    assert isinstance(scanned, Awake)
    assert scanned.until == WOKE + GRACE
    limited = decide(seen(), settings(max_awake=WARNING + 1), WOKE + GRACE - 0.001)
    assert isinstance(limited, Awake)
    assert limited.until == WOKE + GRACE


def test_the_soonest_of_several_reasons_counts() -> None:
    looks = seen(at=WOKE + 5000, ordered=WOKE + 6000)
    until = decide(looks, settings(max_awake=7000.0), WOKE + 5000)
    assert isinstance(until, Awake)
    assert until.until == WOKE + 6000
    limited = decide(looks, settings(max_awake=5500.0), WOKE + 5000)
    assert isinstance(limited, Awake)
    assert limited.until == WOKE + 5500 - WARNING


def test_off_holds_against_limit_and_order() -> None:
    off = settings(sleep_mode="off", max_awake=3600.0)
    assert isinstance(decide(seen(ordered=WOKE), off, WOKE + 1e9), Awake)


def test_without_a_timeout_the_limit_and_an_order_still_count() -> None:
    never = settings(idle_timeout=None, max_awake=3600.0)
    assert isinstance(decide(seen(), never, WOKE + 3600), Warn)
    assert isinstance(decide(seen(ordered=WOKE + 1), never, WOKE + 1), Warn)


@pytest.mark.parametrize("changed", [{"sleep_mode": "off"}, {"idle_timeout": None}])
def test_off_never_sleeps(changed: dict[str, object]) -> None:
    decision = decide(seen(connections=True), settings(**changed), WOKE + 1e9)
    assert decision == Awake(None, None, "pid 7 cc1: 98% of a core")
    assert sleeps_at(decision, WOKE + 1e9) is None


times = st.floats(0, 1e6)


@given(times, times, times, st.booleans(), st.booleans(), st.none() | times)
def test_never_asleep_within_grace_or_before_the_timeout_and_warning(
    at: float, now: float, woke: float, login: bool, connections: bool, warned: float | None
) -> None:
    looks = Seen(woke, Activity("x", at, "x"), login, connections, None, warned)
    decision = decide(looks, settings(), now)
    if isinstance(decision, Sleep):
        assert now >= woke + GRACE
        assert now >= at + WINDOW
        if login or not connections:
            assert now >= at + TIMEOUT + WARNING
            assert warned is not None
    at_least = sleeps_at(decision, now)
    assert at_least is not None
    assert at_least >= now


def test_a_lease_is_an_activity_at_its_end_and_changes_nothing_else() -> None:
    looks = seen(at=WOKE + 10, login=True, ordered=WOKE + 5)
    later = held(looks, WOKE + 100)
    assert later == replace(looks, latest=replace(looks.latest, at=WOKE + 100))
    assert held(looks, WOKE) == looks
