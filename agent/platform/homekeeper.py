"""What people and programs put in the place of the home's links is taken to the volume.

Followed while the machine runs, so that a kill at any instant costs a few seconds at most; and done
before the machine stops or is suspended: a suspended machine that is changed meanwhile is started
cold.
"""

import asyncio
import os
import sys
import time

from agent.bus import Bus
from agent.events import HomeMoved, Notice
from agent.init.children import Children, NotDone
from agent.platform import home
from agent.platform.account import Account, credentials_of, environment_of
from agent.platform.home import Linked
from agent.settings import Settings
from agent.settings.units import HomePath

PATIENCE = 5.0
"""Seconds that it may take at the end of a run."""

LOOK = 4.0
"""Seconds between two looks. What is other than a link in two of them is meant to be."""

PATIENCE_WHILE_RUNNING = 600.0
AGAIN = 60.0
"""Seconds until a path is tried again that a program has open, or that could not be brought."""

SAID = 1 << 16


async def bring_back(settings: Settings, account: Account, children: Children, bus: Bus) -> None:
    """Take what has replaced links, at the end of a run."""
    replaced = _replaced(settings, account)
    if replaced:
        await _bring(replaced, settings, account, children, bus, PATIENCE)


class HomeKeeper:
    """Does it while the machine runs."""

    def __init__(self, settings: Settings, account: Account, children: Children, bus: Bus) -> None:
        self._settings = settings
        self._account = account
        self._children = children
        self._bus = bus
        self._not_before: dict[HomePath, float] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        before: set[HomePath] = set()
        while True:
            now = set(_replaced(self._settings, self._account))
            due = [path for path in now & before if self._not_before.get(path, 0.0) < _clock()]
            if due:
                await self._bring(due)
            before = now
            await asyncio.sleep(LOOK)

    async def _bring(self, due: list[HomePath]) -> None:
        found = await _bring(
            due,
            self._settings,
            self._account,
            self._children,
            self._bus,
            PATIENCE_WHILE_RUNNING,
            hushed=frozenset(self._not_before),
        )
        for path in due:
            self._not_before.pop(path, None)
        failed = {each.path for each in found if each.problem} if found else set(due)
        self._not_before |= dict.fromkeys(failed, _clock() + AGAIN)


_clock = time.monotonic


def _replaced(settings: Settings, account: Account) -> list[HomePath]:
    if os.geteuid() != 0 or not os.path.isdir(settings.volume):
        return []
    return [path for path in settings.home_links if home.is_replaced(account.home, path)]


async def _bring(
    paths: list[HomePath],
    settings: Settings,
    account: Account,
    children: Children,
    bus: Bus,
    patience: float,
    hushed: frozenset[HomePath] = frozenset(),
) -> list[Linked]:
    """Have it done by a process of the account's own: home and volume are full of its links."""
    module = ["-m", "agent.platform.home", account.home, settings.volume]
    try:
        done = await children.run(
            [sys.executable, *module, *(path.words for path in paths)],
            env=environment_of(account.name),
            patience=patience,
            keep=SAID,
            cwd="/",
            run_as=credentials_of(account.name),
        )
        found = home.parse(done.output.decode("utf-8", "replace"), tuple(paths))
    except (OSError, KeyError, NotDone) as error:
        notice = f"what has replaced links of the home is not on the volume: {error}"
        bus.publish(Notice(part="home", notice=notice))
        return []
    tell([each for each in found if each.path not in hushed or not each.problem], bus)
    return found


def tell(found: list[Linked], bus: Bus) -> None:
    """Report what became of the paths."""
    for each in found:
        if each.moved:
            bus.publish(HomeMoved(path=str(each.path)))
        if str(each):
            bus.publish(Notice(part="home", notice=str(each)))
