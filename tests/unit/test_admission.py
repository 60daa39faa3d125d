"""The order of admission, and who is closed at a bound: known networks never wait for strangers."""

import pickle

from hypothesis import given
from hypothesis import strategies as st

from agent.access.admission import TURN, Admission, Lane, Limits, Refusal
from agent.access.jail import Jail, Policy
from agent.access.known import SERVED_FIRST, SPARED, Known
from agent.access.values import Client
from agent.network import Network, is_own

POLICY = Policy(5, 600, 600, 600, 64, ())


def nobody(_: Network) -> bool:
    return False


def client(text: str, *, known: bool = True) -> Client:
    return Client(Network.host(text), known)


class Door(Admission[str]):
    """A door whose clients are identified by a token that begins with their address."""

    def __init__(
        self,
        *,
        allow: str = "",
        deny: str = "",
        total: int = 10,
        per_client: int = 5,
        rate: int = 1000,
        at_once: int = 2,
        ignore: str = "",
        own: bool = False,
        enforce_bans: bool = True,
    ) -> None:
        def networks(text: str) -> tuple[Network, ...]:
            return tuple(map(Network.parse, text.split()))

        policy = Policy(5, 600, 600, 600, 64, networks(ignore))
        self.known = Known()
        self.jail = Jail(policy, is_own if own else nobody, self.known.spared)
        limits = Limits(
            networks(allow), networks(deny), total, per_client, rate, enforce_bans, at_once
        )
        super().__init__(limits, self.jail, self.known)

    def comes(self, token: str, now: float = 0.0, *, known: bool = True) -> list[str]:
        """Add a connection, named by its address and a letter; returns the tokens closed for it."""
        going = self.arrived(token, client(token.rstrip("abcdefgh"), known=known), now)
        for each in going:
            self.left(each)
        return going

    def begin(self, now: float = 0.0) -> list[str]:
        """The clients whose turn begins now, in order."""
        begun = []
        while (token := self.next(now)) is not None:
            begun.append(token)
        return begun

    def logged_in(self, address: str, now: float = 0.0) -> None:
        """Somebody with this address has logged in before, and left."""
        network = self.jail.network(Network.host(address))
        self.known.opened(network, now)
        self.known.closed(network, now)


A, B, C = client("203.0.113.1"), client("198.51.100.1"), client("192.0.2.1")


def test_banned_comes_before_everything() -> None:
    door = Door(allow="192.0.2.0/24")
    door.jail.ban(A.host, 60, 0, "test")
    assert door.decide(A, 1) is Refusal.BANNED
    assert door.decide(B, 1) is Refusal.NOT_ALLOWED
    assert door.decide(C, 1) is None


def test_dry_run_keeps_nobody_out() -> None:
    door = Door(enforce_bans=False)
    door.jail.ban(A.host, 60, 0, "test")
    assert door.decide(A, 1) is None


def test_deny_list_wins_over_allow_list() -> None:
    door = Door(allow="0.0.0.0/0", deny="203.0.113.0/24")
    assert door.decide(A, 0) is Refusal.DENIED
    assert door.decide(B, 0) is None
    assert door.decide(client("2001:db8::1"), 0) is Refusal.NOT_ALLOWED


def test_an_unknown_client_is_on_no_list_and_never_banned() -> None:
    door = Door(deny="203.0.113.0/24")
    door.jail.ban(A.host, 60, 0, "test")
    unknown = client("203.0.113.1", known=False)
    assert door.decide(unknown, 1) is None
    assert Door(allow="203.0.113.0/24").decide(unknown, 1) is Refusal.NOT_ALLOWED


def test_rate_is_a_minutes_worth_at_once_and_fills_again_evenly() -> None:
    door = Door(rate=60)
    assert [door.decide(A, 0) for _ in range(61)] == [None] * 60 + [Refusal.RATE]
    assert door.decide(B, 0) is None
    assert door.decide(A, 1.01) is None
    assert door.decide(A, 1.02) is Refusal.RATE


def test_a_known_network_that_is_too_fast_is_slowed_and_not_refused() -> None:
    door = Door(rate=60)
    door.logged_in("203.0.113.1")
    assert {door.decide(A, 0) for _ in range(200)} == {None}
    assert door.lane(A, 0) is Lane.SLOWED
    assert door.lane(A, 2) is Lane.KNOWN


def test_strangers_have_their_turn_a_few_at_a_time_and_one_of_each_network() -> None:
    door = Door(at_once=2)
    for token in ("10.0.0.1a", "10.0.0.1b", "10.0.0.2a", "10.0.0.3a"):
        door.comes(token)
    assert door.begin() == ["10.0.0.1a", "10.0.0.2a"]
    door.left("10.0.0.2a")
    assert door.begin() == ["10.0.0.3a"]


def test_a_network_alone_has_one_place_however_many_are_free() -> None:
    door = Door(at_once=3)
    door.comes("203.0.113.1a")
    door.comes("203.0.113.1b")
    assert door.begin() == ["203.0.113.1a"]
    assert door.begin(TURN) == ["203.0.113.1b"]


def test_who_had_a_turn_before_a_re_execution_has_no_other_and_keeps_its_place() -> None:
    door = Door(at_once=1)
    door.comes("203.0.113.1a")
    assert door.begin(0.0) == ["203.0.113.1a"]
    door = pickle.loads(pickle.dumps(door))
    door.comes("198.51.100.1a")
    assert door.begin(TURN / 2) == []
    assert door.begin(TURN) == ["198.51.100.1a"]


def test_the_next_place_is_free_when_a_turn_that_still_lasts_is_over() -> None:
    door = Door(at_once=1)
    for token in ("203.0.113.1a", "198.51.100.1a", "192.0.2.1a"):
        door.comes(token)
    door.begin(0.0)
    door.begin(1.5 * TURN)
    assert door.due(1.75 * TURN) == 0.75 * TURN


def test_who_goes_for_the_cap_of_a_client_makes_room_under_the_cap_of_all() -> None:
    door = Door(total=4, per_client=2)
    for token in ("203.0.113.1a", "203.0.113.1b", "198.51.100.1a", "198.51.100.1b"):
        door.comes(token)
    assert door.comes("203.0.113.1c", 1.0) == ["203.0.113.1a"]


def test_a_known_network_is_slowed_until_its_rate_allows_one_more() -> None:
    door = Door(rate=60)
    door.logged_in("203.0.113.1")
    for _ in range(60):
        assert door.decide(A, 0.0) is None
    assert door.lane(A, 0.9) is Lane.SLOWED
    assert door.lane(A, 1.0) is Lane.KNOWN


def test_a_turn_is_over_after_a_second_however_slow_its_client_is() -> None:
    door = Door(at_once=1)
    door.comes("10.0.0.1a")
    door.comes("10.0.0.2a")
    assert door.begin(0.0) == ["10.0.0.1a"]
    assert door.due(0.25) == TURN - 0.25
    assert door.begin(TURN - 0.01) == []
    assert door.begin(TURN) == ["10.0.0.2a"]
    assert door.due(TURN) is None


def test_known_networks_never_wait() -> None:
    door = Door(at_once=1)
    door.logged_in("203.0.113.1")
    for number in range(9):
        door.comes(f"10.0.0.{number}a")
    door.begin()
    for letter in "abcde":
        door.comes(f"203.0.113.1{letter}", 1.0)
    begun = door.begin(0.1)
    assert sorted(begun) == [f"203.0.113.1{letter}" for letter in "abcde"]


def test_known_networks_are_not_pushed_out_by_strangers_and_do_not_push_them_out() -> None:
    door = Door(total=5)
    door.logged_in("203.0.113.1")
    gone = [door.comes(f"10.0.0.{number}a", number) for number in range(20)]
    assert [each for going in gone for each in going] == [f"10.0.0.{n}a" for n in range(15)]
    for letter in "abcde":
        assert door.comes(f"203.0.113.1{letter}", 30.0) == []


def test_who_was_here_a_month_ago_is_a_stranger_again() -> None:
    door = Door()
    door.logged_in("203.0.113.1", 0.0)
    assert door.lane(A, SERVED_FIRST - 1) is Lane.KNOWN
    assert door.lane(A, SERVED_FIRST) is Lane.STRANGER


def test_the_first_login_of_a_network_ends_the_waiting_of_its_others() -> None:
    door = Door(at_once=1)
    door.comes("10.0.0.1a")
    door.comes("203.0.113.1a")
    door.comes("203.0.113.1b")
    assert door.begin() == ["10.0.0.1a"]
    door.logged_in("203.0.113.1")
    assert sorted(door.begin()) == ["203.0.113.1a", "203.0.113.1b"]


def test_who_said_something_is_served_before_the_silent() -> None:
    door = Door(at_once=1)
    door.comes("10.0.0.1a")
    door.comes("10.0.0.2a")
    door.comes("10.0.0.3a")
    door.spoke("10.0.0.3a")
    assert door.begin() == ["10.0.0.3a"]
    assert door.begin(TURN) == ["10.0.0.1a"]


def test_who_has_failed_waits_behind_who_has_not() -> None:
    door = Door(at_once=1)
    from agent.access.values import Verdict

    door.jail.strike(Network.host("10.0.0.1"), Verdict.FAILED, 0)
    door.comes("10.0.0.1a")
    door.comes("10.0.0.2a", 0.5)
    assert door.begin(0.5) == ["10.0.0.2a"]


def test_a_network_with_open_connections_waits_behind_one_without() -> None:
    door = Door(at_once=1)
    door.comes("10.0.0.1a")
    assert door.begin() == ["10.0.0.1a"]
    door.comes("10.0.0.1b", 0.1)
    door.comes("10.0.0.2a", 0.2)
    assert door.begin(TURN) == ["10.0.0.2a"]


def test_a_slowed_network_has_two_places_of_its_own_and_its_newest_first() -> None:
    from agent.access.values import Verdict

    door = Door(at_once=1)
    door.logged_in("203.0.113.1")
    for _ in range(20):
        assert door.jail.strike(A.host, Verdict.INVALID_USER, 1) is None
    assert door.lane(A, 1) is Lane.SLOWED
    door.comes("10.0.0.1a")
    assert door.begin(1) == ["10.0.0.1a"]
    for number, letter in enumerate("abcd"):
        door.comes(f"203.0.113.1{letter}", 1 + number / 10)
    assert door.begin(1.5) == ["203.0.113.1d", "203.0.113.1c"]
    assert door.begin(1.5 + TURN)[:2] == ["203.0.113.1b", "203.0.113.1a"]


def test_at_the_cap_of_a_client_its_oldest_silent_one_goes() -> None:
    door = Door(per_client=2)
    assert door.comes("10.0.0.1a", 0.0) == []
    assert door.comes("10.0.0.1b", 1.0) == []
    assert door.comes("10.0.0.1c", 2.0) == ["10.0.0.1a"]


def test_at_the_cap_of_a_client_that_is_trying_the_newcomer_goes() -> None:
    door = Door(per_client=2)
    for letter in "ab":
        door.comes(f"10.0.0.1{letter}")
        door.tried(f"10.0.0.1{letter}")
    assert door.comes("10.0.0.1c") == ["10.0.0.1c"]


def test_at_the_cap_of_all_the_oldest_silent_one_goes_not_the_newcomer() -> None:
    door = Door(total=3)
    for number in range(3):
        door.comes(f"10.0.0.{number}a", number)
    door.tried("10.0.0.0a")
    assert door.comes("10.0.0.9a", 9.0) == ["10.0.0.1a"]


def test_where_all_are_trying_the_newest_of_the_busiest_goes() -> None:
    door = Door(total=4, per_client=4)
    for token in ("10.0.0.1a", "10.0.0.1b", "10.0.0.1c", "10.0.0.2a"):
        door.comes(token)
        door.tried(token)
    assert door.comes("10.0.0.3a") == ["10.0.0.1c"]


def test_who_never_said_a_word_goes_before_a_newcomer_in_his_key_exchange() -> None:
    door = Door(total=2, at_once=1)
    door.comes("10.0.0.1a", 0.0)
    assert door.begin(0.0) == ["10.0.0.1a"]
    door.comes("10.0.0.2a", 0.5)
    assert door.comes("10.0.0.3a", 2.0) == ["10.0.0.2a"]


def test_ipv6_clients_share_their_prefix_and_own_addresses_are_one() -> None:
    door = Door(per_client=1, own=True)
    door.comes("2001:db8:0:1::1", 0.0)
    assert door.arrived("x", client("2001:db8:0:1::2"), 1.0) == ["2001:db8:0:1::1"]
    door.left("2001:db8:0:1::1")
    door.arrived("y", client("127.0.0.1"), 1.0)
    assert door.arrived("z", client("127.1.0.9"), 2.0) == ["y"]


def test_the_proxys_silence_about_its_clients_costs_them_no_turn() -> None:
    door = Door(at_once=2)
    for letter in "abc":
        door.comes(f"10.0.0.1{letter}", known=False)
    assert len(door.begin()) == 2


def test_who_is_exempt_never_waits() -> None:
    door = Door(at_once=1, ignore="10.9.0.0/16", rate=1)
    door.comes("10.0.0.1a")
    door.begin()
    exempt = client("10.9.0.1")
    assert {door.decide(exempt, 0) for _ in range(50)} == {None}
    door.arrived("x", exempt, 0)
    assert door.begin() == ["x"]


def test_connections_of_a_banned_network_are_found_those_that_wait_included() -> None:
    door = Door(at_once=1)
    door.comes("203.0.113.1a")
    door.begin()
    door.comes("203.0.113.1b")
    door.comes("2001:db8:0:1::1")
    assert door.overlapping(A.host) == ["203.0.113.1a", "203.0.113.1b"]
    assert door.overlapping(Network.parse("203.0.113.0/24")) == ["203.0.113.1a", "203.0.113.1b"]
    assert door.overlapping(Network.parse("2001:db8::/32")) == ["2001:db8:0:1::1"]


def test_who_waits_too_long_is_known() -> None:
    door = Door(at_once=1)
    door.comes("10.0.0.1a", 0.0)
    door.begin(0.0)
    door.comes("10.0.0.2a", 1.0)
    assert door.overdue(30.9, 30.0) == []
    assert door.overdue(31.0, 30.0) == ["10.0.0.2a"]


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.booleans()), max_size=200))
def test_a_flood_never_keeps_out_who_was_here_before(
    steps: list[tuple[int, bool, bool]],
) -> None:
    """Whatever strangers do, both bounds hold, and a known network is served at once."""
    door = Door(total=8, per_client=6, at_once=2)
    door.logged_in("203.0.113.1")
    open_now: list[str] = []
    for number, (who, leaves, tries) in enumerate(steps):
        now = number / 10
        if leaves and open_now:
            door.left(open_now.pop(0))
            continue
        token = f"{number}"
        open_now.append(token)
        for gone in door.arrived(token, client(f"198.51.100.{who}"), now):
            door.left(gone)
            open_now.remove(gone)
        if tries:
            door.tried(token)
        door.begin(now)
        assert door.unauthenticated <= 8
        known = f"known {number}"
        assert door.arrived(known, A, now) == []
        assert door.begin(now)[:1] == [known]
        door.left(known)


def test_spared_networks_are_fewer_days_than_those_that_are_served_first() -> None:
    known, network = Known(), A.host
    known.restore([(network, 0.0)], 10.0)
    assert known.spared(network, SPARED - 1)
    assert not known.spared(network, SPARED)
    assert known.served_first(network, SPARED)
