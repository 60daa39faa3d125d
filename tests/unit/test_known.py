"""Networks that logged in before are remembered for a while, up to a bound."""

import pytest

from agent.access.known import MOST, SERVED_FIRST, SPARED, Known
from agent.network import Network

pytestmark = pytest.mark.attack

A, B = Network.host("203.0.113.1"), Network.host("198.51.100.1")


def test_a_login_is_remembered_for_its_time() -> None:
    known = Known()
    assert not known.served_first(A, 0)
    known.opened(A, 0)
    known.closed(A, 100)
    assert known.spared(A, 100 + SPARED - 1)
    assert not known.spared(A, 100 + SPARED)
    assert known.served_first(A, 100 + SERVED_FIRST - 1)
    assert not known.served_first(A, 100 + SERVED_FIRST)
    assert not known.served_first(B, 0)


def test_an_open_session_spares_its_network_however_long_it_lasts() -> None:
    known = Known()
    known.opened(A, 0)
    known.opened(A, 1)
    known.closed(A, 2)
    assert known.spared(A, 2 + 10 * SERVED_FIRST)
    known.closed(A, 3)
    assert not known.spared(A, 3 + SPARED)


def test_what_is_kept_comes_back_and_a_date_in_the_future_counts_as_now() -> None:
    known = Known()
    known.restore([(A, -100.0), (B, 1e9)], now=10.0)
    assert dict(known.logins(10.0)) == {A: -100.0, B: 10.0}
    assert dict(known.logins(SERVED_FIRST - 100)) == {B: 10.0}


def test_the_memory_is_bounded_and_forgets_the_oldest() -> None:
    known = Known()
    known.opened(A, 0)
    known.closed(A, 0)
    for number in range(MOST):
        known.opened(Network(2, 32, number), 1.0)
    assert not known.served_first(A, 1.0)
    assert len(known.logins(1.0)) == MOST
