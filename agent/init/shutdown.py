"""Ends all our descendants within a budget of time.

Programs get SIGTERM first and sshd after them, so that a session's last output still reaches the
client. Shortly before the budget is over, or at a second stop signal, all that remain are killed: a
process that stays could prevent a clean unmount of the user's volume.
"""

import asyncio
import os
import signal

from agent.init import proctree
from agent.init.proctree import Process

POLL = 0.02
KILL_TIME = 1.0
"""Seconds of the budget for SIGKILL to take effect; at most a quarter of the budget."""

SSHD_PATIENCE = 1.0
"""Seconds that sshd gets to end by itself after the programs of its session ended."""


async def end_descendants(deadline: float, hurry: asyncio.Event, spared: set[int]) -> int:
    """End all our descendants by `deadline` (event-loop time). Returns how many had to be killed.

    The caller has already signalled the process ids in `spared`. Once `hurry` is set, all that
    remain are killed. The caller's reaper reaps them.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    patience_ends = deadline - min(KILL_TIME, (deadline - began) / 4)
    sshd_turn = began + SSHD_PATIENCE
    asked = set(spared)
    while not hurry.is_set() and loop.time() < patience_ends:
        living = proctree.descendants(os.getpid())
        if not living:
            return 0
        turn = {
            process.pid: process
            for process in living
            if loop.time() >= sshd_turn or not process.command.startswith("sshd")
        }
        for pid in turn.keys() - asked:
            _ask(turn[pid])
        asked |= turn.keys()
        await _pause(hurry)
    return await _kill_all(deadline)


async def _pause(hurry: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(POLL):
            await hurry.wait()
    except TimeoutError:
        return


def _ask(process: Process) -> None:
    # To many daemons SIGHUP means "read your settings again": it goes only to processes that ignore
    # SIGTERM, such as an interactive shell.
    deaf = proctree.ignores(process.pid, signal.SIGTERM)
    _send(process.pid, signal.SIGTERM)
    if deaf:
        _send(process.pid, signal.SIGHUP)
    if process.state == "T":
        _send(process.pid, signal.SIGCONT)


async def _kill_all(deadline: float) -> int:
    killed: set[int] = set()
    loop = asyncio.get_running_loop()
    while living := proctree.descendants(os.getpid()):
        for process in living:
            _send(process.pid, signal.SIGKILL)
            killed.add(process.pid)
        if loop.time() > deadline:
            break  # in uninterruptible sleep, or a set-uid program of an ordinary user's session
        await asyncio.sleep(POLL)
    return len(killed)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return
