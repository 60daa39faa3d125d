"""The last word of each run: when and why it ended, and how long the machine was awake.

It is one line on the volume, so that the greeting of the next login can show it at once. If a run
ends unexpectedly (killed, crashed, power cut), its last heartbeat is the last word.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from agent.bounded import bounded
from agent.bus import Bus
from agent.state.page import Page

NAME = "life"
BEAT = 300.0
"""Seconds between heartbeats: the uncertainty about the end of a run that ends unexpectedly."""

SYNC_PATIENCE = 10.0
"""Seconds that a sync of the disks may take."""


@dataclass(frozen=True, slots=True)
class LastWord:
    """How a run ended. `at` is Unix time, `awake` seconds; no `because`: unexpectedly."""

    at: float
    awake: float
    because: str
    month: str
    month_awake: float
    """Seconds awake in the calendar month `month` (UTC, `2026-11`), this run included."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """This run: when it began (monotonic clock), and how the previous one ended, if known."""

    began: float
    before: LastWord | None


class RunJournal:
    """Keeps the record of this run on the volume.

    `month_awake` tells the seconds awake in this calendar month.
    """

    def __init__(self, page: Page, record: RunRecord, month_awake: Callable[[], float]) -> None:
        self.record = record
        self._page = page
        self._month_awake = month_awake

    @property
    def awake(self) -> float:
        """Seconds that this run has lasted."""
        return time.monotonic() - self.record.began

    async def beat(self) -> None:
        """Record that the run continues."""
        await self.end("")

    async def end(self, because: str) -> None:
        """Record that the run ends, or that the machine is suspended and may never be resumed."""
        word = " ".join(because.split())
        month = time.strftime("%Y-%m", time.gmtime())
        fields = (time.time(), self.awake, word, month, self._month_awake())
        await self._page.write("\t".join(map(str, fields)) + "\n")


def page(volume_path: str, bus: Bus) -> Page:
    """Where the last word of each run is kept."""
    return Page(volume_path, NAME, bus)


def begin(page: Page) -> RunRecord:
    """A run that begins now, after the one that the page describes."""
    return RunRecord(time.monotonic(), page.read(_parse, None))


def _parse(line: str) -> LastWord:
    at, awake, because, month, month_awake = line.rstrip("\n").split("\t")
    return LastWord(float(at), float(awake), because, month, float(month_awake))


async def sync_disks() -> None:
    """Write every file system's buffers to disk; a disk that hangs is not waited for."""
    with suppress(TimeoutError):
        await bounded(os.sync, SYNC_PATIENCE)
