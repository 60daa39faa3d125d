"""Measures the delay of the event loop, which delays everything the agent does."""

import asyncio
from collections import deque

EVERY = 10.0
REMEMBERED = 6
"""Measurements of the last minute."""


class Lag:
    """Measures as long as `run` runs."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque([0.0], maxlen=REMEMBERED)

    @property
    def worst(self) -> float:
        """The longest delay of the last minute, in seconds."""
        return max(self._seen)

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + EVERY
            await asyncio.sleep(EVERY)
            self._seen.append(max(0.0, loop.time() - due))
