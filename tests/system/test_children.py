"""Starting and reaping children, among a storm of orphans."""

import subprocess
import sys

import pytest

STORM_AND_CHILDREN = """
import asyncio, os, signal, sys
from agent.init.children import Children, become_subreaper, clean_environment

STORM = '''
import os
for _ in range(3000):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(9)
        os._exit(8)
    os.wait()
'''

async def main():
    become_subreaper()
    children = Children()
    children.watch(asyncio.get_running_loop())
    storm = children.spawn([sys.executable, "-c", STORM], env=clean_environment())
    wrong = []
    for number in range(500):
        child = children.spawn(["sh", "-c", f"exit {number % 256}"], env=clean_environment())
        status = await child.exited
        if status.code != number % 256 or status.signal is not None or child.running:
            wrong.append((number, status))
    killed = children.spawn(["sleep", "100"], env=clean_environment())
    killed.send(signal.SIGUSR1)
    assert (await killed.exited).code == 128 + signal.SIGUSR1
    killed.send(signal.SIGTERM)  # it is gone: nobody else may be hit
    assert (await storm.exited).code == 0
    while children.orphans_reaped < 3000:
        await asyncio.sleep(0.01)
    print(wrong)

asyncio.run(main())
"""

GRANDCHILD_HOLDS_PIPE = """
import asyncio, os
from agent.init.children import Children, clean_environment

async def main():
    children = Children()
    children.watch(asyncio.get_running_loop())
    reading, writing = os.pipe()
    child = children.spawn(
        ["sh", "-c", "sleep 30 2>/dev/null & exit 7"], env=clean_environment(), stdout=writing
    )
    os.close(writing)
    print((await asyncio.wait_for(child.exited, 10)).code)
    os.close(reading)

asyncio.run(main())
"""


def run(script: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.strip()


@pytest.mark.xdist_group("heavy")
def test_five_hundred_exit_statuses_are_right_in_a_storm_of_orphans() -> None:
    assert run(STORM_AND_CHILDREN) == "[]"


def test_a_grandchild_that_holds_the_pipe_delays_nobody() -> None:
    assert run(GRANDCHILD_HOLDS_PIPE) == "7"
