"""Writing on terminals: busy ones are retried, stopped ones block nobody."""

import asyncio
import os
import pty
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from agent.platform import terminals
from tests.support import until

_WRITE = ("1", "64")  # the number of write(2) on x86_64 and aarch64


def _blocked_in_write(thread: threading.Thread) -> bool:
    syscall = Path(f"/proc/self/task/{thread.native_id}/syscall").read_text()
    return syscall.split()[0] in _WRITE


def test_a_terminal_that_another_process_writes_on_is_tried_again() -> None:
    """The greeting was lost if the shell's first prompt came at the same moment."""
    ours, theirs = pty.openpty()
    termios.tcflow(theirs, termios.TCOOFF)
    writer = threading.Thread(target=os.write, args=(theirs, b"$ "))
    writer.start()
    until(lambda: _blocked_in_write(writer), "a writer that holds the terminal")

    os.set_blocking(ours, False)
    seen = b""

    async def greet() -> None:
        nonlocal seen
        terminals.write(os.ttyname(theirs).removeprefix("/dev/"), "welcome")
        termios.tcflow(theirs, termios.TCOON)
        async with asyncio.timeout(10):
            while b"welcome" not in seen:
                await asyncio.sleep(0.01)
                with suppress(BlockingIOError):
                    seen += os.read(ours, 4096)

    asyncio.run(greet())
    assert seen == b"$ \r\r\nwelcome\r\r\n"
    writer.join()
    os.close(ours)
    os.close(theirs)


def test_a_stopped_terminal_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    termios.tcflow(theirs, termios.TCOOFF)
    name = os.ttyname(theirs).removeprefix("/dev/")
    tries = []

    async def write() -> None:
        def call_later(_: float, again: Callable[..., None], *words: object) -> None:
            tries.append(words)
            again(*words)

        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
        terminals.write(name, "no one reads this", attempts=3)

    asyncio.run(write())
    assert [words[-1] for words in tries] == [2, 1]
    termios.tcflow(theirs, termios.TCOON)
    os.set_blocking(ours, False)
    with pytest.raises(BlockingIOError):
        os.read(ours, 4096)
    os.close(ours)
    os.close(theirs)
