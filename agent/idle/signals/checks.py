"""Checks of the user's own: programs that exit with 0 when something of theirs is busy."""

from agent.idle import programs
from agent.idle.signals.sign import Sign
from agent.init.children import Children
from agent.platform.account import Account

FOLDER = "checks.d"
CANNOT_RUN = 126
"""From here on an exit status is the shell's word that something could not be run."""


class Checks:
    """Runs every check, one after the other, each for at most `timeout` seconds."""

    name = "check"

    def __init__(self, children: Children, account: Account, timeout: float) -> None:
        self._children = children
        self._account = account
        self._timeout = timeout

    async def look(self, _now: float) -> list[Sign]:
        """A sign for each check. Raises `programs.ProgramError` for one that is broken."""
        found, errors = programs.find(FOLDER, self._account)
        if errors:
            raise errors[0]
        return [await self._sign(program) for program in found]

    async def _sign(self, program: programs.Program) -> Sign:
        done = await programs.run(program, self._children, self._timeout, {})
        if done.status.code >= CANNOT_RUN:
            raise programs.ProgramError(f"{program.path}: {done.status}, {done.said}")
        busy = done.status.code == 0
        says = f"{program.name}: {done.said or ('busy' if busy else 'not busy')}"
        return Sign(busy, says)
