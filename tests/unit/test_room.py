"""How many processes an account and its logins may have."""

import os

import pytest

from agent.access.room import LOGIN, Tasks, limit_of_login, usual_limit

pytestmark = pytest.mark.attack


def test_the_accounts_part_is_of_what_the_machine_holds() -> None:
    assert usual_limit(0.75, Tasks(most=300, now=20)) == 225
    mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    assert usual_limit(0.5, Tasks(most=1 << 22, now=20)) == max(1024, mib) // 2


@pytest.mark.parametrize(
    ("now", "limit"),
    [(20, 225), (200, 200 + LOGIN), (280, 300), (300, 300)],
    ids=["quiet", "bombed", "nearly full", "full"],
)
def test_a_login_may_have_more_than_all_that_run(now: int, limit: int) -> None:
    assert limit_of_login(225, Tasks(300, now)) == limit
