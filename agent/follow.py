"""Follows the files that may change while the agent runs: settings, services, keys, the home.

watchfiles says that something happened in one of a few folders; what it means is decided by
comparing the files themselves with what they were (`_State`). So a burst of changes is one change,
an editor's lock file is none, and it does not matter by which link, rename or swap a file came.
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
"""Links on one way, as for the kernel (path_resolution(7))."""


class Home(Protocol):
    """The home, whose folders are not watched: its owner could tell us of any number of changes."""

    def is_replaced(self) -> bool:
        """There is something to do. Called at each of the watcher's looks, in its thread."""

    def notice(self) -> None:
        """There may be something to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """Files that are read together. `files` lists them; `places` are where they may appear."""

    places: Callable[[], Iterable[str]]
    files: Callable[[], list[str]]
    read: Callable[[], Awaitable[None]]

    def folders(self) -> set[str]:
        """Those of the files, and of every link on the way to them."""
        return {folder for place in (*self.places(), *self.files()) for folder in _way(place)}

    def state(self) -> tuple[tuple[object, ...], ...]:
        """Of all its files as they are now (stat(2))."""
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
        """Read what changed, until cancelled; everything is read once at the start.

        Raises what a reader raises, and what watchfiles does where it cannot watch. Called again,
        it reads only what is new, and what failed.
        """
        await self._follower.run()


class Follower:
    """Calls `on_change` of each source at the start, and after each change of its files."""

    def __init__(self, sources: Sequence[Source], home: Home | None = None) -> None:
        self._sources = sources
        self._home = home
        self._known: dict[int, object] = {}

    async def run(self) -> None:
        """Follow until cancelled. A source that fails holds up no other; then it raises."""
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
    """watchfiles in a thread of its own: at the end nobody waits for its next look."""

    def __init__(self, folders: frozenset[str], home: Home | None) -> None:
        self.folders = folders
        self._home = home
        self.is_stale = False
        """One of them was removed, and perhaps made again: the kernel watches the old one."""
        self._loop = asyncio.get_running_loop()
        self._begun = self._stopped = False
        self._changed = asyncio.Event()
        self._problem: Exception | None = None

    def start(self) -> None:
        """Watch from now on."""
        threading.Thread(target=self._run, daemon=True, name="follow").start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped = True

    def is_set(self) -> bool:
        """For watchfiles, which asks at every look whether it shall stop."""
        if not self._begun:
            # What changed before it watched must be looked for.
            self._begun = True
            self._tell(None)
        if self._home is not None and not self._stopped and self._home.is_replaced():
            self._loop.call_soon_threadsafe(self._home.notice)
        return self._stopped

    async def changed(self) -> None:
        """Wait for a change in one of the folders. Raises what made watching impossible."""
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
    """The folders in which a change can change what `path` is.

    Its own, those of every link on the way, and of what does not exist the nearest that does.
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
    """Read the settings again; a file that cannot be used changes nothing."""
    try:
        wanted = load(environ, privileged=os.geteuid() == 0).settings
    except SettingsError as error:
        bus.publish(SettingsRefused(problem=str(error)))
        return
    change = current.change_to(wanted)
    if change.applied or change.waiting:
        bus.publish(SettingsChanged(applied=change.applied, waiting=change.waiting))
