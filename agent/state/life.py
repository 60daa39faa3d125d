"""The last word of each life: when and why it ended, and how long it was awake.

One line on the volume, so that the next login can be told at once. A life that ended without a word
(killed, crashed, power cut) is known by its last heartbeat.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.bounded import bounded
from agent.events import Bus
from agent.state.page import Page

if TYPE_CHECKING:
    from agent.handover import HeldIdle

NAME = "life"
BEAT = 300.0
"""Seconds between heartbeats: what a life that ends without a word may be off by."""

SYNC_PATIENCE = 10.0
"""Seconds that writing everything to the disks may take."""


@dataclass(frozen=True, slots=True)
class LastWord:
    """How a life ended. `at` is Unix time, `awake` seconds; no `because`: it did not say."""

    at: float
    awake: float
    because: str
    month: str
    month_awake: float
    """Seconds awake in the calendar month `month` (UTC, `2026-11`), this life included."""


class LifeRecord:
    """Keeps the record of this life. `before` is the last word of the one before it."""

    def __init__(self, volume_path: str, bus: Bus, held: "HeldIdle | None" = None) -> None:
        self._page = Page(volume_path, NAME, bus)
        self.began = time.monotonic() if held is None else held.awake_since
        """When this life began, on the monotonic clock."""
        self.month_awake: Callable[[], float] = lambda: 0.0
        """Seconds awake in this calendar month; set by who counts them."""
        self.before = self._page.read(_parse, None) if held is None else held.before

    @property
    def awake(self) -> float:
        """Seconds that this life has lasted."""
        return time.monotonic() - self.began

    async def beat(self) -> None:
        """This life goes on."""
        await self.end("")

    async def end(self, because: str) -> None:
        """This life ends, or the machine is suspended and may never be resumed."""
        word = " ".join(because.split())
        month = time.strftime("%Y-%m", time.gmtime())
        fields = (time.time(), self.awake, word, month, self.month_awake())
        await self._page.write("\t".join(map(str, fields)) + "\n")


def _parse(line: str) -> LastWord:
    at, awake, because, month, month_awake = line.rstrip("\n").split("\t")
    return LastWord(float(at), float(awake), because, month, float(month_awake))


async def sync_disks() -> None:
    """Write every file system's buffers to disk; a disk that hangs is not waited for."""
    with suppress(TimeoutError):
        await bounded(os.sync, SYNC_PATIENCE)
