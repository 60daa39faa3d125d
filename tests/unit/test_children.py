"""Running a program to its end: bounded in time and output, in its own session."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from agent.init.children import (
    MOST_OUTPUT,
    Children,
    Finished,
    NotDone,
    clean_environment,
)

T = TypeVar("T")


def with_children(work: Callable[[Children], Awaitable[T]]) -> T:
    async def main() -> T:
        children = Children()
        children.watch(asyncio.get_running_loop())
        return await work(children)

    return asyncio.run(main())


def run(*argv: str, patience: float = 60.0, keep: int = 4096) -> Finished:
    async def work(children: Children) -> Finished:
        return await children.run(argv, env=clean_environment(), patience=patience, keep=keep)

    return with_children(work)


def test_status_and_output_of_both_streams() -> None:
    done = run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.status.code, done.output) == (3, b"out\nerr\n")


def test_the_last_bytes_are_kept() -> None:
    assert run("sh", "-c", "seq 10000; echo end", keep=4).output == b"end\n"


@pytest.mark.attack
def test_who_is_not_done_in_time_is_killed_with_its_group() -> None:
    with pytest.raises(NotDone, match=r"sh was not done within 0\.3 s"):
        run("sh", "-c", "sleep 600 & sleep 600", patience=0.3)


def test_who_ignores_the_closed_pipe_is_done_when_its_time_is_over() -> None:
    """The output of a program that never stops writing is read up to a bound."""
    done = run("sh", "-c", "yes", keep=10)
    assert done.status.signal is not None or done.status.code != 0
    assert len(done.output) == 10
    assert MOST_OUTPUT < 1 << 24


def test_who_holds_the_output_open_is_not_waited_for() -> None:
    assert run("sh", "-c", "setsid sleep 5 & echo done", patience=4.0).output == b"done\n"


def test_a_program_that_is_not_there_is_an_os_error_and_leaks_nothing() -> None:
    async def work(children: Children) -> None:
        before = os.listdir("/proc/self/fd")
        for _ in range(10):
            with pytest.raises(FileNotFoundError):
                await children.run(["/no/such"], env={}, patience=1.0)
        assert len(os.listdir("/proc/self/fd")) == len(before)

    with_children(work)


def test_cancelling_kills_it() -> None:
    async def work(children: Children) -> None:
        task = asyncio.create_task(
            children.run(["sleep", "600"], env={"PATH": "/bin:/usr/bin"}, patience=600)
        )
        await asyncio.sleep(0)  # it has begun, and waits
        child = next(iter(children._children.values()))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await child.exited

    with_children(work)


TERMINAL = """
import os
try:
    os.open("/dev/tty", os.O_RDWR)
    print("a terminal")
except OSError:
    print(os.getsid(0) == os.getpid())
"""


@pytest.mark.attack
def test_children_lead_a_session_without_a_terminal() -> None:
    assert run(sys.executable, "-c", TERMINAL).output == b"True\n"


def test_a_child_that_ends_before_it_is_adopted_is_known_with_its_status() -> None:
    """Many logins while the process re-executes: one exits before the gate is back."""

    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})

    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    async def main() -> None:
        children = Children()
        child = children.adopt(pid, None)
        children.watch(asyncio.get_running_loop())
        assert (await child.exited).code == 3
        assert children.orphans_reaped == 0

    asyncio.run(main())
