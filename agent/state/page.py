"""A small text file in our folder on the volume, read and replaced as a whole.

A failed read or write is reported once and has no other effect. Writing happens in a thread,
because the disk may be slow or hang.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from agent.bounded import bounded
from agent.bus import Bus
from agent.events import StateKept, StateNotKept, StateReplaced
from agent.platform import volume

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds that writing may take."""


class Page:
    """The file `name` in the agent's folder on the volume."""

    def __init__(self, volume_path: str, name: str, bus: Bus) -> None:
        self.path = f"{volume_path}/{volume.FOLDER}/{name}"
        self._volume = volume_path
        self._name = name
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._one_at_a_time = asyncio.Lock()
        self._told = False
        self.behind = False
        """The last write of the file failed."""

    def read(self, parse: Callable[[str], T], nothing: T) -> T:
        """The text as parsed by `parse`; `nothing` if there is none or it cannot be read.

        The file is set aside if `parse` raises `ValueError`, or if other accounts can write it.
        """
        try:
            with volume.own_folder(self._volume, self._replaced) as folder:
                try:
                    content = folder.read(self._name)
                    return nothing if content is None else parse(content.decode("utf-8"))
                except (ValueError, volume.NotTrusted) as error:
                    kept_as = folder.set_aside(self._name)
                    self._replaced(f"{self.path}: {error}", f"{folder.path}/{kept_as}")
        except (OSError, volume.NotTrusted) as error:
            self.tell(str(error))
        return nothing

    async def write(self, text: str) -> None:
        """Replace the file; returns once it is on disk, or the failure was reported."""
        async with self._one_at_a_time:
            self.behind = True
            try:
                await bounded(partial(self._write, text), PATIENCE)
                self.behind = False
            except TimeoutError:
                self.tell(f"the disk did not answer within {PATIENCE:g} s")
            except (OSError, volume.NotTrusted) as error:
                self.tell(str(error))
            else:
                if self._told:
                    self._told = False
                    self._bus.publish(StateKept(path=self.path))

    def _write(self, text: str) -> None:
        with volume.own_folder(self._volume, self._replaced) as folder:
            folder.write(self._name, text.encode("utf-8"))

    def tell(self, problem: str) -> None:
        """Report once that the file cannot be used."""
        if not self._told:
            self._told = True
            self._bus.publish(StateNotKept(problem=f"{self.path}: {problem}"))

    def _replaced(self, reason: str, kept_as: str) -> None:
        event = StateReplaced(reason=reason, kept_as=kept_as)
        self._loop.call_soon_threadsafe(self._bus.publish, event)
