"""Linking the home before SSH is open takes a bounded time, whatever the account has put there."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.init.children import Children
from agent.platform import home
from agent.platform.account import Account
from agent.platform.home import Linked
from agent.settings.units import HomePath
from tests.support import let_others_in

pytestmark = [pytest.mark.attack, pytest.mark.root]

DONE, LATER = HomePath("done", is_folder=True), HomePath("later", is_folder=True)


def test_who_does_not_end_is_killed_and_what_was_done_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_others_in(tmp_path)
    pipe = tmp_path / "pid"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    pipe.chmod(0o666)

    def never(*_: object) -> Iterator[Linked]:
        """Linking, as on a file system that does not answer."""
        yield Linked(DONE, moved=True)
        pipe.write_text(str(os.getpid()))
        time.sleep(600)

    monkeypatch.setattr(home, "_link_each", never)
    monkeypatch.setattr(home, "PATIENCE_AT_BOOT", 2.0)
    nobody = Account("nobody", 65534, 65534, str(tmp_path), "/bin/sh", locked=False)

    async def main() -> list[Linked]:
        children = Children()
        children.watch(asyncio.get_running_loop())
        found = await home.link_all(nobody, str(tmp_path), (DONE, LATER), children)
        pid = int(os.read(reading, 100))
        async with asyncio.timeout(30):
            while os.path.exists(f"/proc/{pid}"):  # noqa: ASYNC110  # it is reaped by our loop
                await asyncio.sleep(0.02)
        return found

    done, later = asyncio.run(main())
    assert done == Linked(DONE, moved=True)
    assert "not done within 2 s" in later.problem
