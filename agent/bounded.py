"""Runs work that may hang, such as writing to a failed disk, with a time limit.

Also runs work beside a block; the work never outlives the block.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from agent.init.children import leave_signals

T = TypeVar("T")


async def bounded(work: Callable[[], T], patience: float) -> T:
    """The result of `work`, done in a thread. Raises what `work` raises, and `TimeoutError`.

    It gets its own thread, which nothing waits for: a disk may hang when the agent exits.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]  # no error: it is a T

    def thread() -> None:
        leave_signals()
        value, problem = None, None
        try:
            value = work()
        except Exception as error:
            problem = error
        with suppress(RuntimeError):  # the loop is closed by now
            loop.call_soon_threadsafe(settle, value, problem)

    threading.Thread(target=thread, daemon=True, name="bounded").start()
    async with asyncio.timeout(patience):
        return await result


@asynccontextmanager
async def beside(work: Coroutine[None, None, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run `work` while the block runs; if it still runs at the end of the block, cancel it."""
    running = asyncio.create_task(work)
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # mark it as seen: the task was awaited, or the block failed first
