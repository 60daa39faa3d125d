"""Work that may hang, such as writing to a disk that is gone: waited for only so long.

And work beside other work, which never outlives it.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from agent.init.children import leave_signals

T = TypeVar("T")


async def bounded(work: Callable[[], T], patience: float) -> T:
    """The result of `work`, done in a thread. Raises what it raises, and `TimeoutError`.

    The thread is one of its own that nobody waits for: at the end of the agent, a disk may hang.
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
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, value, problem)

    threading.Thread(target=thread, daemon=True, name="bounded").start()
    async with asyncio.timeout(patience):
        return await result


@asynccontextmanager
async def beside(work: Coroutine[None, None, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run `work` while the block runs. At its end it is over: what still runs is cancelled."""
    running = asyncio.create_task(work)
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # whoever awaited the task has it; otherwise the block failed first
