"""How many processes an account and its logins may have."""

import asyncio
import os
import threading

import pytest

from agent.access.room import LOGIN, Room, Tasks, limit_of_login, usual_limit
from agent.bus import Bus
from agent.init.children import Child, Children
from agent.platform import terminals
from agent.platform.account import Account

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


@pytest.mark.root
def test_looking_for_hoards_of_terminals_holds_up_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """With very many processes and open files it takes seconds."""
    looking, go_on = threading.Event(), threading.Event()

    def hoards(_: int) -> list[terminals.Hoard]:
        looking.set()
        assert go_on.wait(60)
        return []

    monkeypatch.setattr(terminals, "left", lambda: 0)
    monkeypatch.setattr(terminals, "hoards", hoards)
    account = Account("nobody", 65534, 65534, "/", "/bin/sh", locked=False)

    async def main() -> None:
        room = Room(None, account, Children(), Bus())
        for pid in (1, 2):  # the second one sees that a search is running already
            assert room.for_a_login(lambda pid=pid: Child(pid)).pid == pid  # type: ignore[misc]
        async with asyncio.timeout(60):
            while not looking.is_set():  # noqa: ASYNC110  # another thread sets it
                await asyncio.sleep(0.01)
        go_on.set()

    asyncio.run(main())
