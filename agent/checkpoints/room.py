"""Space on the volume: checkpoints use a share of it, and leave a reserve for the user's work."""

import asyncio
import os
from collections.abc import Coroutine
from typing import TypeVar

from agent.bounded import beside
from agent.checkpoints.faults import Fault, ResticError

T = TypeVar("T")

RESERVE, RESERVE_SHARE = 64 << 20, 0.02
"""The reserve that checkpoints leave free on the volume, so that the user's work can continue."""

TICK = 2.0
"""Seconds between two checks of the free space while a checkpoint is made."""


def limit(volume: str, share: float) -> int:
    """Bytes that checkpoints may use. Raises `OSError`."""
    status = os.statvfs(volume)
    return int(status.f_blocks * status.f_frsize * share)


def is_left(volume: str) -> bool:
    """Whether more than the reserve is free. Raises `OSError`."""
    status = os.statvfs(volume)
    size = status.f_blocks * status.f_frsize
    reserve = max(min(RESERVE, size // 10), int(size * RESERVE_SHARE))
    return status.f_bavail * status.f_frsize > reserve


async def while_left(volume: str, work: Coroutine[None, None, T]) -> T:
    """The result of `work`, which is cancelled if only the reserve is left."""
    async with beside(work) as running:
        while not (await asyncio.wait([running], timeout=TICK))[0]:
            if not is_left(volume):
                raise ResticError(Fault.FULL, f"{volume} got full; abandoned")
        return running.result()
