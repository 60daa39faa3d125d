from hypothesis import given
from hypothesis import strategies as st

from agent.access.admission import Admission, Limits, Refusal
from agent.access.jail import Jail, Policy
from agent.access.values import Client
from agent.network import Network

POLICY = Policy(5, 600, 600, 600, 64, ())


def nobody(_: Network) -> bool:
    return False


def client(text: str, *, known: bool = True) -> Client:
    return Client(Network.host(text), known)


def admission(
    *,
    allow: str = "",
    deny: str = "",
    total: int = 10,
    per_client: int = 5,
    rate: int = 1000,
    jail: Jail | None = None,
    enforce_bans: bool = True,
) -> Admission[int]:
    def networks(text: str) -> tuple[Network, ...]:
        return tuple(map(Network.parse, text.split()))

    limits = Limits(networks(allow), networks(deny), total, per_client, rate, enforce_bans)
    return Admission(limits, jail or Jail(POLICY, nobody))


A, B, C = client("203.0.113.1"), client("198.51.100.1"), client("192.0.2.1")


def test_banned_comes_before_everything() -> None:
    jail = Jail(POLICY, nobody)
    jail.ban(A.host, 60, 0, "test")
    gate = admission(allow="192.0.2.0/24", jail=jail)
    assert gate.decide(A, 1) is Refusal.BANNED
    assert gate.decide(B, 1) is Refusal.NOT_ALLOWED
    assert gate.decide(C, 1) is None


def test_dry_run_keeps_nobody_out() -> None:
    jail = Jail(POLICY, nobody)
    jail.ban(A.host, 60, 0, "test")
    assert admission(jail=jail, enforce_bans=False).decide(A, 1) is None


def test_deny_list_wins_over_allow_list() -> None:
    gate = admission(allow="0.0.0.0/0", deny="203.0.113.0/24")
    assert gate.decide(A, 0) is Refusal.DENIED
    assert gate.decide(B, 0) is None
    assert gate.decide(client("2001:db8::1"), 0) is Refusal.NOT_ALLOWED


def test_an_unknown_client_is_on_no_list_and_never_banned() -> None:
    jail = Jail(POLICY, nobody)
    jail.ban(A.host, 60, 0, "test")
    unknown = client("203.0.113.1", known=False)
    assert admission(jail=jail, deny="203.0.113.0/24").decide(unknown, 1) is None
    assert admission(allow="203.0.113.0/24").decide(unknown, 1) is Refusal.NOT_ALLOWED


def test_cap_of_one_client_counts_only_the_unauthenticated() -> None:
    gate = admission(per_client=2)
    gate.entered(1, A)
    gate.entered(2, A)
    assert gate.decide(A, 0) is Refusal.CLIENT_CAP
    assert gate.decide(B, 0) is None
    gate.left(1)  # it logged in
    assert gate.decide(A, 0) is None
    gate.left(1)  # and ended: leaving twice is no mistake
    assert gate.unauthenticated == 1


def test_at_the_total_cap_the_newest_of_the_busiest_goes() -> None:
    gate = admission(total=4, per_client=4)
    for token in (1, 2, 3):
        gate.entered(token, A)
    gate.entered(4, B)
    assert gate.to_evict() is None
    assert gate.decide(A, 0) is Refusal.TOTAL_CAP
    assert gate.decide(C, 0) is None
    gate.entered(5, C)
    assert gate.to_evict() == 3
    gate.left(3)
    assert gate.to_evict() is None


def test_ipv6_clients_share_their_prefix() -> None:
    gate = admission(per_client=1)
    gate.entered(1, client("2001:db8:0:1::1"))
    assert gate.decide(client("2001:db8:0:1::2"), 0) is Refusal.CLIENT_CAP
    assert gate.decide(client("2001:db8:0:2::1"), 0) is None


def test_rate_is_a_minutes_worth_at_once_and_fills_again_evenly() -> None:
    gate = admission(rate=60)
    assert [gate.decide(A, 0) for _ in range(61)] == [None] * 60 + [Refusal.RATE]
    assert gate.decide(B, 0) is None
    assert gate.decide(A, 1.01) is None
    assert gate.decide(A, 1.02) is Refusal.RATE


def test_connections_of_a_banned_network_are_found() -> None:
    gate = admission()
    gate.entered(1, A)
    gate.entered(2, client("2001:db8:0:1::1"))
    gate.entered(3, client("2001:db8:0:2::1"))
    assert gate.of(A.host) == [1]
    assert gate.of(Network.parse("2001:db8::/32")) == [2, 3]
    assert gate.of(Network.parse("203.0.113.0/24")) == [1]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=200))
def test_a_flood_never_keeps_a_lone_client_out(steps: list[tuple[int, bool]]) -> None:
    """Whatever others do, the count stays within the cap, and who has nothing open gets in."""
    gate = admission(total=8, per_client=6)
    tokens: list[int] = []
    for number, (who, leaves) in enumerate(steps):
        if leaves and tokens:
            gate.left(tokens.pop(0))
            continue
        caller = client(f"198.51.100.{who}")
        if gate.decide(caller, 0) is None:
            gate.entered(number, caller)
            tokens.append(number)
            evicted = gate.to_evict()
            if evicted is not None:
                gate.left(evicted)
                tokens.remove(evicted)
        assert gate.unauthenticated <= 8
    busiest = max((len(gate.of(client(f"198.51.100.{who}").host)) for who in range(6)), default=0)
    assert gate.decide(C, 0) is None or busiest <= 1
