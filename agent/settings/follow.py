"""Following the settings file: a change that is sound takes effect while the agent runs."""

import os
from collections.abc import Mapping

from asyncinotify import Inotify, Mask

from agent.events import Bus, SettingsChanged, SettingsRefused
from agent.settings.current import Current
from agent.settings.load import SettingsError, config_path, load

_CHANGES = Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.DELETE


async def follow(current: Current, environ: Mapping[str, str], bus: Bus) -> None:
    """Take over each change of the settings file until cancelled. Raises `OSError`.

    Its folder is watched, because editors put a new file in the place of the old one.
    """
    folder, name = os.path.split(config_path(environ))
    if not os.path.isdir(folder):
        return
    with Inotify() as inotify:
        inotify.add_watch(folder, _CHANGES)
        async for event in inotify:
            if event.name is not None and event.name.name == name:
                reload(current, environ, bus)


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
