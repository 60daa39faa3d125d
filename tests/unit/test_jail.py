import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.access.jail import HISTORY_DECAY, WEIGHTS, Jail, Policy
from agent.access.values import Ban, Verdict
from agent.network import Network

A = Network.host("203.0.113.9")
B = Network.host("198.51.100.7")
POLICY = Policy(
    maxretry=5, findtime=600, bantime=600, bantime_max=7 * 86400, ipv6_prefix=64, ignore=()
)
FAILED = Verdict.FAILED


def nobody(_: Network) -> bool:
    return False


def fail(jail: Jail, times: int, now: float = 0.0, host: Network = A) -> Ban | None:
    ban = None
    for _ in range(times):
        ban = ban or jail.strike(host, FAILED, now)
    return ban


def test_maxretry_strikes_make_a_ban_of_bantime() -> None:
    jail = Jail(POLICY, nobody)
    assert fail(jail, 4) is None
    ban = fail(jail, 1)
    assert ban is not None
    assert (ban.network, ban.until - ban.since, ban.times) == (A, 600, 1)
    assert jail.banned(A, 599.9)
    assert not jail.banned(A, 600)
    assert not jail.banned(B, 1)


@pytest.mark.parametrize(
    ("verdict", "connections"),
    [(Verdict.INVALID_USER, 3), (Verdict.FAILED, 5), (Verdict.PROBE, 10)],
)
def test_verdicts_weigh_differently(verdict: Verdict, connections: int) -> None:
    jail = Jail(POLICY, nobody)
    bans = [jail.strike(A, verdict, 0) for _ in range(connections)]
    assert [ban is not None for ban in bans] == [False] * (connections - 1) + [True]


@pytest.mark.parametrize("verdict", [Verdict.NOTHING, Verdict.LOGIN])
def test_a_bare_connect_and_a_login_weigh_nothing(verdict: Verdict) -> None:
    jail = Jail(POLICY, nobody)
    assert not any(jail.strike(A, verdict, 0) for _ in range(1000))


def test_strikes_leave_the_window_at_its_end() -> None:
    jail = Jail(POLICY, nobody)
    fail(jail, 4, now=0)
    assert jail.weight(A, 599.9) == 4
    assert jail.weight(A, 600) == 0
    assert fail(jail, 4, now=600) is None


def test_a_login_clears_the_slate() -> None:
    jail = Jail(POLICY, nobody)
    fail(jail, 4)
    jail.login(A)
    assert fail(jail, 4, now=2) is None
    assert fail(jail, 1, now=2) is not None


@pytest.mark.attack
def test_a_network_that_is_spared_is_slowed_and_never_banned() -> None:
    jail = Jail(POLICY, nobody, lambda network, _: network == A)
    assert fail(jail, 4) is None
    assert not jail.has_too_many(A, 1)
    assert fail(jail, 1) is None
    assert jail.has_too_many(A, 1)
    assert fail(jail, 1000) is None
    assert not jail.banned(A, 1)
    assert not jail.has_too_many(A, 600)
    assert fail(jail, 5, host=B) is not None


@pytest.mark.attack
def test_silence_for_most_of_the_time_weighs_a_little() -> None:
    jail = Jail(POLICY, nobody)
    bans = [jail.strike(A, Verdict.NOTHING, 0, silent=True) for _ in range(10)]
    assert [ban is not None for ban in bans] == [False] * 9 + [True]
    assert bans[-1] is not None
    assert "silence" in bans[-1].reason


@pytest.mark.attack
def test_a_broken_account_is_nobodys_strike() -> None:
    jail = Jail(POLICY, nobody)
    assert not any(jail.strike(A, Verdict.BROKEN_ACCOUNT, 0) for _ in range(1000))


@pytest.mark.parametrize("verdict", [Verdict.LOGIN, Verdict.BROKEN_ACCOUNT])
def test_a_login_is_no_strike_however_long_it_lasts(verdict: Verdict) -> None:
    jail = Jail(POLICY, nobody)
    assert not any(jail.strike(A, verdict, 0, silent=True) for _ in range(1000))
    assert (jail.weight(A, 0), jail.strikes_given) == (0.0, 0)


def test_ban_time_doubles_up_to_its_maximum_and_history_decays() -> None:
    jail = Jail(POLICY, nobody)
    now, lengths = 0.0, []
    for _ in range(14):
        ban = fail(jail, 5, now)
        assert ban is not None
        lengths.append(ban.until - ban.since)
        now = ban.until
    assert lengths[:4] == [600, 1200, 2400, 4800]
    assert lengths[-1] == POLICY.bantime_max
    ban = fail(jail, 5, now + 13 * HISTORY_DECAY)
    assert ban is not None
    assert ban.times == 2
    jail.expire(ban.until + 2 * HISTORY_DECAY)
    assert fail(jail, 5, ban.until + 3 * HISTORY_DECAY).times == 1  # type: ignore[union-attr]


def test_ipv6_is_counted_by_its_prefix() -> None:
    jail = Jail(POLICY, nobody)
    hosts = [Network.host(f"2001:db8:0:1::{number:x}") for number in range(5)]
    bans = [jail.strike(host, FAILED, 0) for host in hosts]
    assert bans[-1] is not None
    assert str(bans[-1].network) == "2001:db8:0:1::/64"
    assert jail.banned(Network.host("2001:db8:0:1:ffff::1"), 1)
    assert not jail.banned(Network.host("2001:db8:0:2::1"), 1)


def test_ignored_networks_are_never_banned() -> None:
    policy = Policy(1, 600, 600, 600, 64, ignore=(Network.parse("203.0.113.0/24"),))
    jail = Jail(policy, nobody)
    assert fail(jail, 100) is None
    jail.ban(Network.parse("203.0.0.0/16"), 60, 0, "by hand")
    assert not jail.banned(A, 1)
    assert jail.banned(Network.host("203.0.1.1"), 1)


def test_own_addresses_are_never_kept_out() -> None:
    jail = Jail(POLICY, lambda host: host == A)
    assert fail(jail, 100) is None
    jail.ban(Network.parse("203.0.113.0/24"), 60, 0, "by hand")
    assert not jail.banned(A, 1)
    assert jail.banned(Network.host("203.0.113.10"), 1)


def test_networks_can_be_banned_and_lifted_by_hand() -> None:
    jail = Jail(POLICY, nobody)
    network = Network.parse("198.51.100.0/24")
    jail.ban(network, 60, 0, "by hand")
    assert jail.banned(B, 59)
    assert [ban.network for ban in jail.active(1)] == [network]
    assert jail.unban(network, 1) is not None
    assert not jail.banned(B, 1)
    assert jail.unban(network, 1) is None


def test_expire_forgets_strikes_and_logins_but_not_bans_that_hold() -> None:
    jail = Jail(POLICY, nobody)
    fail(jail, 1, host=B)
    jail.login(Network.host("192.0.2.1"))
    fail(jail, 5)
    assert jail.expire(600) == []
    assert not jail._strikes
    assert jail.expire(600 + HISTORY_DECAY) == [A]
    assert not jail._bans
    assert not jail._prefixes


def test_a_million_bans_are_forgotten_in_turns_and_found_at_once() -> None:
    from agent.access.jail import EXPIRE_BATCH

    jail = Jail(POLICY, nobody)
    for number in range(3 * EXPIRE_BATCH):
        jail.ban(Network(A.family, 32, number), 60, 0, "test")
    kept = Network(A.family, 32, 5)
    jail.ban(kept, 7 * HISTORY_DECAY, 0, "test")
    later = 60 + 2 * HISTORY_DECAY
    assert sum(len(jail.expire(later)) for _ in range(4)) == 3 * EXPIRE_BATCH - 1
    assert jail.banned(kept, later)


@pytest.mark.attack
def test_memory_of_bans_is_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.access.jail.MOST_BANS", 100)
    jail = Jail(POLICY, nobody)
    hosts = [Network(A.family, 32, number) for number in range(150)]
    for host in hosts:
        jail.ban(host, 60, 0, "test")
    assert [ban.network for ban in jail.all()] == hosts[50:]
    assert not jail.banned(hosts[49], 0)
    assert jail.banned(hosts[50], 0)


@pytest.mark.attack
def test_memory_of_strikes_is_bounded() -> None:
    from agent.access.jail import TRACKED

    jail = Jail(POLICY, nobody)
    for number in range(TRACKED + 100):
        jail.strike(Network(A.family, 32, number), FAILED, 0)
    assert len(jail._strikes) == TRACKED


VERDICTS = st.sampled_from([*WEIGHTS, Verdict.NOTHING, Verdict.LOGIN])
STEPS = st.lists(st.tuples(st.floats(0, 400), VERDICTS), max_size=60)


@given(STEPS)
def test_no_ban_without_enough_strikes_in_the_window_and_none_shorter_than_said(
    steps: list[tuple[float, Verdict]],
) -> None:
    jail, now = Jail(POLICY, nobody), 0.0
    strikes: list[tuple[float, float]] = []
    until = -1.0
    for wait, verdict in steps:
        now += wait
        assert (jail.banned(A, now) is not None) == (now < until)
        ban = jail.strike(A, verdict, now)
        if now >= until:
            strikes.append((now, WEIGHTS.get(verdict, 0)))
        inside = sum(weight for at, weight in strikes if now - at < POLICY.findtime)
        if ban is not None:
            assert inside >= POLICY.maxretry
            assert ban.until >= ban.since + POLICY.bantime
            assert ban.since == now
            until, strikes = ban.until, []
        elif now >= until and WEIGHTS.get(verdict):
            assert inside < POLICY.maxretry
