"""The user's own checks: programs that exit with 0 when something is busy."""

import asyncio

from agent.idle import programs
from agent.idle.signals.sign import Sign
from agent.init.children import Children
from agent.platform.account import Account

FOLDER = "checks.d"
CANNOT_RUN = 126
"""This and higher exit statuses mean that the program could not be run (shell convention)."""


AT_ONCE = 4
"""Checks that run in parallel."""


class Checks:
    """Runs every check; all checks of one look together take at most `timeout` seconds."""

    name = "check"

    def __init__(self, children: Children, account: Account, timeout: float) -> None:
        self._children = children
        self._account = account
        self._timeout = timeout

    async def look(self, _now: float) -> list[Sign]:
        """A sign for each check. Raises `programs.ProgramError` for one that is broken."""
        found, errors = await programs.find(FOLDER, self._account, self._children)
        if errors:
            raise errors[0]
        ends, few = asyncio.get_running_loop().time() + self._timeout, asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._look_at(each, ends, few)) for each in found]
        signs = [task.result() for task in tasks]
        for sign in signs:
            if isinstance(sign, programs.ProgramError):
                raise sign
        return [sign for sign in signs if isinstance(sign, Sign)]

    async def _look_at(
        self, program: programs.Program, ends: float, few: asyncio.Semaphore
    ) -> Sign | programs.ProgramError:
        async with few:
            try:
                return await self._sign(program, ends - asyncio.get_running_loop().time())
            except programs.ProgramError as error:
                return error

    async def _sign(self, program: programs.Program, left: float) -> Sign:
        if left <= 0:
            raise programs.ProgramError(
                f"{program.path}: other checks used up the {self._timeout:g} s for all checks"
            )
        done = await programs.run(program, self._children, left, {})
        if done.status.code >= CANNOT_RUN:
            raise programs.ProgramError(f"{program.path}: {done.status}, {done.said}")
        busy = done.status.code == 0
        says = f"{program.name}: {done.said or ('busy' if busy else 'not busy')}"
        return Sign(busy, says)
