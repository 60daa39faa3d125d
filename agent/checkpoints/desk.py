"""Orders that take longer than a request: carried out in turn; clients ask until one is done."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from agent.checkpoints.faults import ResticError
from agent.checkpoints.repository import Refused

MOST_ORDERS = 8
"""The most orders that may wait."""

REMEMBERED = 16
"""How many orders keep their results."""


@dataclass(slots=True)
class Job:
    """An order. When it is done, it has a `result` or a `problem`."""

    number: int
    work: Callable[[], Awaitable[object]]
    done: asyncio.Event
    result: object = None
    problem: str = ""


class Desk:
    """Takes orders; `run` carries them out."""

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}
        self._queue: asyncio.Queue[Job] = asyncio.Queue(MOST_ORDERS)
        self._count = 0

    async def run(self) -> None:
        """Carry out orders until cancelled."""
        while True:
            job = await self._queue.get()
            try:
                job.result = await job.work()
            except (ResticError, Refused) as error:
                job.problem = str(error)
            except BaseException as error:
                job.problem = f"the agent failed: {type(error).__name__}: {error}"
                raise
            finally:
                job.done.set()

    def order(self, work: Callable[[], Awaitable[object]]) -> int:
        """Queue an order; returns its number. Raises `Refused`."""
        job = Job(self._count + 1, work, asyncio.Event())
        try:
            self._queue.put_nowait(job)
        except asyncio.QueueFull:
            raise Refused(f"{MOST_ORDERS} orders wait already: try again later") from None
        self._count = job.number
        self._jobs[job.number] = job
        while len(self._jobs) > REMEMBERED:
            del self._jobs[next(iter(self._jobs))]
        return job.number

    async def wait(self, number: int, patience: float) -> Job:
        """The order, once it is done or after `patience` seconds. Raises `KeyError`."""
        job = self._jobs[number]
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await job.done.wait()
        return job
