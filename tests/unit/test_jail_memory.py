"""The jail's memory, in corner cases."""

import pytest

from agent.access import jail as module
from agent.access.jail import EXPIRE_BATCH, HISTORY_DECAY, Jail, Policy
from agent.access.values import Ban, Verdict
from agent.network import Network

POLICY = Policy(maxretry=5, findtime=600, bantime=600, bantime_max=86400, ipv6_prefix=64, ignore=())
FAILED = Verdict.FAILED
A, B, C, D = (Network.host(f"203.0.113.{number}") for number in range(1, 5))


def jail(policy: Policy = POLICY) -> Jail:
    return Jail(policy, lambda _: False)


def fail(made: Jail, times: int, now: float = 0.0, host: Network = A) -> Ban | None:
    ban = None
    for _ in range(times):
        ban = made.strike(host, FAILED, now)
    return ban


def test_an_ipv6_host_is_its_prefix_and_a_shorter_network_is_itself() -> None:
    made = jail()
    assert str(made.network(Network.host("2001:db8:1:2:3::9"))) == "2001:db8:1:2::/64"
    assert str(made.network(Network.parse("2001:db8::/48"))) == "2001:db8::/48"
    assert made.network(A) == A


def test_a_ban_of_a_host_keeps_its_network_and_its_neighbours_in() -> None:
    made = jail()
    made.ban(A, 60, 0, "test")
    assert made.banned(A, 0) is not None
    assert made.banned(Network.parse("203.0.113.0/24"), 0) is None
    assert made.banned(B, 0) is None
    assert made.banned(Network.host("2001:db8::1"), 0) is None


def test_one_network_without_a_ban_does_not_hide_another_with_one() -> None:
    made = jail()
    made.ban(Network.parse("198.51.100.0/24"), 60, 0, "test")
    made.ban(Network.parse("203.0.0.0/16"), 10, 0, "test")
    made.ban(A, 60, 0, "test")
    assert made.banned(A, 30) is not None


def test_a_strike_is_counted_unless_it_weighs_nothing_or_the_host_is_banned() -> None:
    made = jail()
    made.strike(A, Verdict.NOTHING, 0)
    assert made.strikes_given == 0
    ban = fail(made, 5)
    assert ban is not None
    assert ban.reason == "5 failed connections: failed"
    assert made.strikes_given == 5
    assert made.strike(A, FAILED, 1) is None
    assert made.strikes_given == 5
    assert made.weight(A, 1) == 0
    assert made.strike(A, FAILED, ban.until) is None
    assert made.weight(A, ban.until) == 1


def test_strikes_of_one_ipv6_network_are_counted_together() -> None:
    made = jail()
    fail(made, 2, host=Network.host("2001:db8::1"))
    fail(made, 1, host=Network.host("2001:db8::2"))
    assert made.weight(made.network(Network.host("2001:db8::3")), 0) == 3


def test_the_longest_silent_network_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRACKED", 2)
    made = jail()
    for host in (A, B, A, C):  # A was seen after B
        fail(made, 1, host=host)
    assert [made.weight(host, 0) for host in (A, B, C)] == [2, 0, 1]


def test_a_ban_takes_the_strikes_with_it() -> None:
    made = jail()
    fail(made, 3)
    made.ban(A, 1, 0, "by hand")
    assert made.weight(A, 0) == 0


def test_the_shortest_ban_is_bantime_whatever_its_maximum() -> None:
    made = jail(Policy(1, 600, 600, 60, 64, ()))
    ban = fail(made, 1)
    assert ban is not None
    assert ban.until - ban.since == 600


def test_however_often_it_comes_back_the_time_is_a_number() -> None:
    made = jail()
    made.restore(Ban(A, 0, 1, 5000, "test"))
    ban = made.ban(A, None, 1, "again")
    assert (ban.times, ban.until - ban.since) == (5001, POLICY.bantime_max)


def test_a_history_is_forgotten_one_ban_a_day() -> None:
    made = jail()
    made.restore(Ban(A, 0, 100, 3, "test"))
    for days, times in ((0, 4), (0.999, 4), (1, 3), (1.999, 3), (2, 2), (3, 1), (9, 1)):
        made.restore(Ban(A, 0, 100, 3, "test"))
        assert made.ban(A, 60, 100 + days * HISTORY_DECAY, "again").times == times, days


def test_a_ban_that_still_holds_counts_whole() -> None:
    made = jail()
    made.restore(Ban(A, 0, 10 * HISTORY_DECAY, 1, "test"))
    assert made.ban(A, 60, 0, "again").times == 2


def test_lifting_a_ban_forgets_the_history_and_answers_what_held() -> None:
    made = jail()
    made.ban(A, 60, 0, "test")
    lifted = made.unban(A, 59.9)
    assert lifted is not None
    assert lifted.network == A
    assert made.get(A) is None
    assert made.ban(A, 60, 60, "again").times == 1
    assert made.unban(A, 120) is None  # its time was over
    assert made.all() == []


def test_bans_by_number_of_bits_come_and_go() -> None:
    """A ban of a network is found while any ban of its size exists."""
    made = jail()
    made.ban(A, 60, 0, "test")
    made.ban(A, 60, 0, "again")
    made.ban(B, 60, 0, "test")
    made.unban(A, 1)
    assert made.banned(B, 1) is not None
    made.unban(B, 1)
    assert made.banned(B, 1) is None
    made.ban(B, 60, 0, "once more")
    assert made.banned(B, 1) is not None


def test_one_ban_more_than_can_be_kept_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BANS", 2)
    made = jail()
    for host in (A, B):
        made.ban(host, 60, 0, "test")
    made.ban(A, 60, 0, "again")  # nothing is removed for it, and it is the latest now
    assert made.banned(B, 1) is not None
    made.ban(C, 60, 0, "test")
    assert [ban.network for ban in made.all()] == [A, C]
    assert made.banned(B, 1) is None


def test_active_bans_are_the_latest_first_and_counted() -> None:
    made = jail()
    for number, host in enumerate((A, B, C)):
        made.ban(host, 10 * (number + 1), 0, "test")
    assert [ban.network for ban in made.active(9.9)] == [C, B, A]
    assert [ban.network for ban in made.active(10)] == [C, B]
    assert [ban.network for ban in made.active(0, 1)] == [C]
    assert [made.count(now) for now in (0, 9.9, 10, 30)] == [3, 3, 2, 0]
    assert made.get(B) == made.active(0)[1]
    assert made.get(D) is None


def test_very_many_bans_are_not_counted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COUNTED", 2)
    made = jail()
    for host in (A, B):
        made.ban(host, 10, 0, "test")
    assert made.count(20) == 0
    made.ban(C, 10, 0, "test")
    assert made.count(20) == 3


def test_a_dry_run_marks_its_bans() -> None:
    made = jail(Policy(1, 600, 600, 600, 64, (), dry_run=True))
    ban = fail(made, 1)
    assert ban is not None
    assert ban.dry_run
    assert not jail().ban(A, 60, 0, "test").dry_run


def test_expire_keeps_what_the_last_strike_still_needs() -> None:
    made = jail()
    fail(made, 1, now=0)
    fail(made, 1, now=500)
    made.expire(1099.9)
    assert made.weight(A, 1099.9) == 1
    made.expire(1100)
    assert made.weight(A, 500) == 0  # gone, even for a time in the past


def test_expire_looks_at_every_ban_in_turn_and_begins_again() -> None:
    made = jail()
    hosts = [Network(A.family, 32, number) for number in range(EXPIRE_BATCH + 2)]
    for host in hosts:
        made.ban(host, 60, 0, "test")
    lasting = made.ban(D, 100 * HISTORY_DECAY, 0, "test")
    over = 60 + HISTORY_DECAY
    assert made.expire(over - 0.1) == []  # one batch
    assert made.expire(over) == hosts[EXPIRE_BATCH:]  # the rest of the first turn
    assert made.expire(over) == hosts[:EXPIRE_BATCH]
    assert made.expire(over) == []
    assert made.all() == [lasting]


def test_a_ban_lifted_while_its_turn_comes_is_no_mistake() -> None:
    made = jail()
    hosts = [Network(A.family, 32, number) for number in range(EXPIRE_BATCH + 1)]
    for host in hosts:
        made.ban(host, 60, 0, "test")
    made.expire(0)
    made.unban(hosts[-1], 0)
    assert made.expire(60 + HISTORY_DECAY) == []


def test_what_is_known_is_judged_by_another_policy() -> None:
    made = jail()
    fail(made, 3, host=A)
    for number, host in enumerate((C, D)):
        made.ban(host, 60 + number, 0, "test")
    made.restore(Ban(Network.host("192.0.2.1"), 0, 60, 1, "tried", dry_run=True))
    tried = Policy(4, 600, 600, 600, 64, (), dry_run=True)
    made.follow(tried)
    assert len(made.all()) == 3  # nothing was enforced and nothing is
    strict = Policy(4, 600, 600, 600, 64, (C,))
    made.follow(strict)
    assert made.policy == strict
    assert [ban.network for ban in made.all()] == [C, D]
    assert made.banned(C, 1) is None  # it is ignored now
    assert made.banned(D, 1) is not None
    assert made.strikes_given == 3
    assert made.weight(A, 1) == 3
    assert fail(made, 3, now=1, host=B) is None
    assert fail(made, 1, now=1, host=A) is not None
    made.keep_latest(1)
    assert [ban.network for ban in made.all()] == [A]
    made.keep_latest(1)
    assert len(made.all()) == 1


def test_one_more_than_are_remembered_is_one_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRACKED", 2)
    made = jail()
    fail(made, 1, host=A)
    fail(made, 1, host=B)
    assert [made.weight(host, 0) for host in (A, B)] == [1, 1]
