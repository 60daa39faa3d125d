"""Scrape the machine's metrics while it is awake, as the platform does."""

import asyncio
from collections.abc import Callable

import aiohttp

from deploy.standin import MachineState, StandIn

EVERY = 15.0
PATIENCE = 10.0


class Scraper:
    """Asks for /metrics on the machine's port; `latest` is the last answer."""

    def __init__(self, standin: StandIn, port: int, tell: Callable[[str], None]) -> None:
        self._standin = standin
        self._url = f"http://127.0.0.1:{port}/metrics"
        self._tell = tell
        self._failing = False
        self.latest = ""

    async def run(self, every: float = EVERY) -> None:
        """Scrape until cancelled."""
        limit = aiohttp.ClientTimeout(total=PATIENCE)
        async with aiohttp.ClientSession(timeout=limit) as session:
            while True:
                await asyncio.sleep(every)
                if self._standin.state is MachineState.STARTED:
                    await self._scrape(session)

    async def _scrape(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.get(self._url) as answer:
                answer.raise_for_status()
                self.latest = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            if not self._failing and self._standin.state is MachineState.STARTED:
                self._failing = True
                self._tell(f"a scrape failed: {error}")
        else:
            self._failing = False
