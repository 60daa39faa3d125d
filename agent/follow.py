"""Follows the files that may change while the agent runs: settings, services, keys, the home.

watchfiles only says that something happened in one of a few folders; then the state of the files
is compared with their previous state (`_state`). So a burst of changes is one change, an editor's
lock file is none, and it does not matter by which link, rename or swap a file appeared.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import watchfiles

from agent.access.keyring import Keyring
from agent.access.keys import SUFFIX
from agent.bus import Bus
from agent.events import SettingsChanged, SettingsRefused
from agent.init.children import leave_signals
from agent.services.supervisor import Supervisor
from agent.settings.current import Current
from agent.settings.files import listed
from agent.settings.load import SettingsError, config_path, load

STEP = 1300
"""Milliseconds between two looks of watchfiles. A change is reported after at most two of them, and
each costs an idle machine a wake-up."""

NO_TIMEOUT = 0

LINKS = 40
"""The most links on one path, the kernel's limit (path_resolution(7))."""


class Home(Protocol):
    """The home. Its folders are not watched: its owner could cause any number of changes."""

    def is_replaced(self) -> bool:
        """Whether there is something to do. Called at each look of the watcher, in its thread."""

    def notice(self) -> None:
        """Check now: there may be something to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """Files that are read together. `files` lists them; `places` are where they may appear."""

    places: Callable[[], Iterable[str]]
    files: Callable[[], list[str]]
    read: Callable[[], Awaitable[None]]

    def folders(self) -> set[str]:
        """The folders of the files, and of every link on the path to them."""
        return {folder for place in (*self.places(), *self.files()) for folder in _way(place)}

    def state(self) -> tuple[tuple[object, ...], ...]:
        """The present state of all its files (stat(2))."""
        return tuple(map(_state, self.files()))

    async def on_change(self) -> None:
        """Read them."""
        await self.read()


class Files:
    """Follows settings, services, keys and the home while `follow` runs."""

    def __init__(
        self,
        current: Current,
        environ: Mapping[str, str],
        keyring: Keyring,
        supervisor: Supervisor,
        home: Home,
        bus: Bus,
    ) -> None:
        def settings() -> list[str]:
            return [config_path(environ)]

        async def settings_changed() -> None:
            _reread(current, environ, bus)

        def services() -> list[str]:
            return [*settings(), current.value.services_dir]

        def keys() -> list[str]:
            return [current.value.keys_dir]

        async def keys_changed() -> None:
            keyring.load()

        self._follower = Follower(
            (
                Source(settings, settings, settings_changed),
                Source(services, lambda: supervisor.files, supervisor.follow),
                Source(keys, lambda: _files(current.value.keys_dir), keys_changed),
            ),
            home,
        )

    async def follow(self) -> None:
        """Read changed files, until cancelled; everything is read once at the start.

        Raises the errors of readers, and of watchfiles if it cannot watch. Called again, it reads
        only new changes, and what failed.
        """
        await self._follower.run()


class Follower:
    """Calls `on_change` of each source at the start, and after each change of its files."""

    def __init__(self, sources: Sequence[Source], home: Home | None = None) -> None:
        self._sources = sources
        self._home = home
        self._known: dict[int, object] = {}

    async def run(self) -> None:
        """Follow until cancelled. If a source fails, the rest are read first; then it raises."""
        watcher = _Watcher(frozenset(), None)
        try:
            while True:
                folders = self._folders()
                if folders != watcher.folders or watcher.is_stale:
                    watcher.stop()
                    watcher = _Watcher(folders, self._home)
                    watcher.start()
                await self._look()
                await watcher.changed()
        finally:
            watcher.stop()

    def _folders(self) -> frozenset[str]:
        return frozenset(folder for each in self._sources for folder in each.folders())

    async def _look(self) -> None:
        problem: Exception | None = None
        for number, source in enumerate(self._sources):
            state = source.state()
            if self._known.get(number) == state:
                continue
            try:
                await source.on_change()
            except Exception as error:
                problem = problem or error
            else:
                self._known[number] = state
        if problem is not None:
            raise problem


class _Watcher:
    """watchfiles in its own thread, so that nothing waits for its next look at the end."""

    def __init__(self, folders: frozenset[str], home: Home | None) -> None:
        self.folders = folders
        self._home = home
        self.is_stale = False
        """A folder was removed, and perhaps created again: the kernel still watches the old one."""
        self._loop = asyncio.get_running_loop()
        self._begun = self._stopped = False
        self._changed = asyncio.Event()
        self._problem: Exception | None = None

    def start(self) -> None:
        """Start watching."""
        threading.Thread(target=self._run, daemon=True, name="follow").start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped = True

    def is_set(self) -> bool:
        """Called by watchfiles at every look, to learn whether it should stop."""
        if not self._begun:
            # Files may have changed before the watch began.
            self._begun = True
            self._tell(None)
        if self._home is not None and not self._stopped and self._home.is_replaced():
            self._loop.call_soon_threadsafe(self._home.notice)
        return self._stopped

    async def changed(self) -> None:
        """Wait for a change in one of the folders. Raises the error that prevents watching."""
        await self._changed.wait()
        self._changed.clear()
        if self._problem is not None:
            raise self._problem

    def _run(self) -> None:
        leave_signals()
        try:
            for changes in watchfiles.watch(
                *self.folders,
                watch_filter=None,
                step=STEP,
                debounce=STEP,
                rust_timeout=NO_TIMEOUT,
                stop_event=self,
                raise_interrupt=False,
                force_polling=False,
                recursive=False,
            ):
                gone = {path for kind, path in changes if kind != watchfiles.Change.modified}
                self.is_stale = self.is_stale or not gone.isdisjoint(self.folders)
                self._tell(None)
        except Exception as error:
            self._tell(error)

    def _tell(self, problem: Exception | None) -> None:
        def told() -> None:
            self._problem = problem
            self._changed.set()

        if not self._stopped:
            self._loop.call_soon_threadsafe(told)


def _way(path: str) -> set[str]:
    """The folders in which a change can affect `path`.

    They are its own folder and those of every link on the way; for a missing folder, the nearest
    existing one.
    """
    found: set[str] = set()
    at, rest, links = "/", os.path.abspath(path).split("/"), 0
    while rest:
        name = rest.pop(0)
        step = os.path.join(at, name)
        if name == "..":
            at = os.path.dirname(at)
        elif name and os.path.islink(step) and links < LINKS:
            found.add(at)
            links += 1
            target = os.readlink(step)
            at, rest = "/" if target.startswith("/") else at, target.split("/") + rest
        elif not os.path.isdir(step) or not rest:
            return found | {at} | ({step} if os.path.isdir(step) else set())
        else:
            at = step
    return found | {at}


def _state(path: str) -> tuple[object, ...]:
    try:
        status = os.stat(path)
    except OSError as error:
        return path, error.errno
    identity = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    return path, *identity, status.st_mode, status.st_uid


def _files(folder: str) -> list[str]:
    return listed(folder, SUFFIX) if os.path.isdir(folder) else []


def _reread(current: Current, environ: Mapping[str, str], bus: Bus) -> None:
    """Re-read the settings; a file that cannot be used changes nothing."""
    try:
        wanted = load(environ, privileged=os.geteuid() == 0).settings
    except SettingsError as error:
        bus.publish(SettingsRefused(problem=str(error)))
        return
    change = current.change_to(wanted)
    if change.applied or change.waiting:
        bus.publish(SettingsChanged(applied=change.applied, waiting=change.waiting))
