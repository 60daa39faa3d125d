"""Moves content that people and programs put in the place of the home's links to the volume.

It does so while the machine runs (agent/follow.py), so that a kill loses at most a few seconds, and
before the machine stops or is suspended: a suspended machine that is changed meanwhile starts cold.
"""

import asyncio
import os
import sys
import time
from contextlib import suppress

from agent.bus import Bus
from agent.events import HomeMoved, Notice
from agent.init.children import Children, NotDone
from agent.platform import home
from agent.platform.account import Account, credentials_of, environment_of
from agent.platform.home import Linked
from agent.settings import Settings
from agent.settings.units import HomePath

PATIENCE = 5.0
"""Seconds that this may take at the end of a run."""

SETTLES = 0.5
"""Seconds for which a link must be gone before we act: between rm and mkdir we must not link."""

PATIENCE_WHILE_RUNNING = 600.0
AGAIN = 60.0
"""Seconds until a path is retried that a program has open, or that could not be moved."""

SAID = 1 << 16

UNLINKED = "home-unlinked"
"""The file in the run folder that lists paths which no boot of this machine has linked yet; so
nobody has replaced or removed their links."""


async def bring_back(settings: Settings, account: Account, children: Children, bus: Bus) -> None:
    """Move content that has replaced links, at the end of a run."""
    replaced = _replaced(settings, account)
    if replaced:
        await _bring(replaced, settings, account, children, bus, PATIENCE)


def note_unlinked(settings: Settings, account: Account, bus: Bus) -> None:
    """Record the paths that the boot could not link; call it before anybody can log in."""
    unlinked = {path.path for path in _replaced(settings, account)}
    try:
        _keep_unlinked(settings, unlinked)
    except OSError as error:
        bus.publish(Notice(part="home", notice=f"the list of unlinked paths: {error}"))


class HomeKeeper:
    """Does this while the machine runs. `is_replaced` and `notice` are for the follower."""

    def __init__(self, settings: Settings, account: Account, children: Children, bus: Bus) -> None:
        self._settings = settings
        self._account = account
        self._children = children
        self._bus = bus
        self._changed = asyncio.Event()
        self._not_before: dict[HomePath, float] = {}

    def is_replaced(self) -> bool:
        """Whether a link is replaced. Cheap: it only looks at a few names."""
        return bool(_replaced(self._settings, self._account))

    def notice(self) -> None:
        """Wake `run`."""
        self._changed.set()

    async def run(self) -> None:
        """Move replaced paths, until cancelled."""
        while True:
            self._changed.clear()
            if self._due():
                await asyncio.sleep(SETTLES)
                if due := self._due():
                    await self._bring(due)
                continue
            await self._until_change()

    def _due(self) -> list[HomePath]:
        """The replaced paths that are due now."""
        replaced = _replaced(self._settings, self._account)
        self._not_before = {path: at for path, at in self._not_before.items() if path in replaced}
        return [path for path in replaced if self._not_before.get(path, 0.0) <= _clock()]

    async def _until_change(self) -> None:
        """Wait for a change, or until a retry is due."""
        again = min(self._not_before.values(), default=None)
        with suppress(TimeoutError):
            async with asyncio.timeout(None if again is None else max(0.0, again - _clock())):
                await self._changed.wait()

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
    """Let a process of the account do it: home and volume are full of its links."""
    unlinked = _unlinked(settings)
    words = [account.home, settings.volume, " ".join(unlinked), *(path.words for path in paths)]
    try:
        done = await children.run(
            [sys.executable, "-m", "agent.platform.home", *words],
            env=environment_of(account.name),
            patience=patience,
            keep=SAID,
            cwd="/",
            run_as=credentials_of(account.name),
        )
        found = home.parse(done.output.decode("utf-8", "replace"), tuple(paths))
        linked = {each.path.path for each in found if not each.problem}
        if not unlinked.isdisjoint(linked):
            _keep_unlinked(settings, unlinked - linked)
    except (OSError, KeyError, NotDone) as error:
        notice = f"replaced paths of the home could not be moved to the volume: {error}"
        bus.publish(Notice(part="home", notice=notice))
        return []
    tell([each for each in found if each.path not in hushed or not each.problem], bus)
    return found


def _unlinked(settings: Settings) -> set[str]:
    try:
        with open(f"{settings.run_dir}/{UNLINKED}", encoding="utf-8") as file:
            return set(file.read().split())
    except FileNotFoundError:
        return set()


def _keep_unlinked(settings: Settings, paths: set[str]) -> None:
    path = f"{settings.run_dir}/{UNLINKED}"
    if paths:
        with open(path, "w", encoding="utf-8") as file:
            file.write(" ".join(sorted(paths)))
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)


def tell(found: list[Linked], bus: Bus) -> None:
    """Report the results of the paths."""
    for each in found:
        if each.moved:
            bus.publish(HomeMoved(path=str(each.path)))
        if str(each):
            bus.publish(Notice(part="home", notice=str(each)))
