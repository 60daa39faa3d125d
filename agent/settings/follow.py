"""Following files that may change while the agent runs: settings, services, keys."""

import os
from collections.abc import Awaitable, Callable, Mapping

from asyncinotify import Inotify, Mask

from agent.events import Bus, SettingsChanged, SettingsRefused
from agent.settings.current import Current
from agent.settings.load import SettingsError, config_path, load

_CHANGES = Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE | Mask.ATTRIB

Wanted = Callable[[str], bool]


async def follow(folders: Mapping[str, Wanted], on_change: Callable[[], Awaitable[None]]) -> None:
    """Call `on_change` after each change of a wanted file in one of the folders, until cancelled.

    It is called once at the start too: what changed before the folders were watched is not missed.
    Folders are watched, because editors put a new file in the place of the old one. One that does
    not exist is left out. Raises `OSError`.
    """
    with Inotify() as inotify:
        wanted = {
            inotify.add_watch(folder, _CHANGES): is_wanted
            for folder, is_wanted in folders.items()
            if os.path.isdir(folder)
        }
        await on_change()
        async for event in inotify:
            is_wanted = wanted.get(event.watch) if event.watch is not None else None
            if is_wanted is not None and event.name is not None and is_wanted(event.name.name):
                await on_change()


def config_folder(environ: Mapping[str, str]) -> tuple[str, Wanted]:
    """The folder of the settings file, and what in it is the settings file."""
    folder, name = os.path.split(config_path(environ))
    return folder, lambda changed: changed == name


def reload(current: Current, environ: Mapping[str, str], bus: Bus) -> None:
    """Read the settings again; a file that cannot be used changes nothing."""
    try:
        wanted = load(environ, privileged=os.geteuid() == 0).settings
    except SettingsError as error:
        bus.publish(SettingsRefused(problem=str(error)))
        return
    change = current.change_to(wanted)
    if change.applied or change.waiting:
        bus.publish(SettingsChanged(applied=change.applied, waiting=change.waiting))
