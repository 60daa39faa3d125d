"""Parts that SSH does not need: each may crash and is started again; none takes SSH with it."""

import asyncio
from collections.abc import Awaitable, Callable

from agent.events import Bus, PartFailed

FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
"""Seconds before a crashed part is started again; doubled each time it crashes."""

STABLE = 300.0
"""Seconds of life after which a crash counts as the first again."""


def retry_delay(failures: int) -> float:
    """Seconds to wait after the `failures`-th crash in a row."""
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2 ** (failures - 1)))


async def keep_running(name: str, part: Callable[[], Awaitable[None]], bus: Bus) -> None:
    """Run a part for ever; a crash is told and the part started again."""
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began = loop.time()
        try:
            await part()
        except Exception as error:
            failures = 1 if loop.time() - began > STABLE else failures + 1
            delay = retry_delay(failures)
            bus.publish(
                PartFailed(part=name, problem=f"{type(error).__name__}: {error}", retry_in=delay)
            )
        else:
            return
        await asyncio.sleep(delay)
