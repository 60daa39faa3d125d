"""Puts the machine to sleep: hooks, then a suspend that is verified, or a stop.

Until the suspend or stop, a sleep can be cancelled. If anything goes wrong with a suspend, the
machine stops instead, which always works.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from agent.access.gate import Gate
from agent.access.sessions import Sessions
from agent.bus import Bus
from agent.clock import clock
from agent.events import HookFailed, SleepBegan, SuspendFailed
from agent.idle import programs
from agent.idle.policy import Cause
from agent.init.children import Children
from agent.life.ending import Ending, Stop
from agent.platform import homekeeper, terminals
from agent.platform.account import Account
from agent.platform.fly import ApiError, FlyMachine
from agent.settings.current import Current
from agent.state.runs import RunJournal, sync_disks

HOOKS = "sleep.d"
API_PATIENCE = 20.0
"""Seconds the Machines API may take to answer."""

FREEZE_PATIENCE = 30.0
"""Seconds between the API's acceptance and the freeze."""

TICK = 0.2
JUMP = 1.5
"""A clock must be off by so many seconds between two ticks to prove that we were frozen."""


@dataclass(frozen=True, slots=True)
class Sleeper:
    """Puts the machine to sleep in the mode that the settings name."""

    current: Current
    account: Account
    children: Children
    sessions: Sessions
    gate: Gate
    fly: FlyMachine | None
    journal: RunJournal
    stop: Stop
    bus: Bus
    checkpoint: Callable[[float], Awaitable[None]]
    """Makes a checkpoint of the work within so many seconds, or gives up."""
    farewells: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """Called before the machine sleeps; each limits its own time."""

    def tell_terminals(self, text: str) -> int:
        """Write lines on every open terminal; returns the number of terminals."""
        found = {name for session in self.sessions for name in session.terminals}
        if os.geteuid() == 0:
            # Terminals of editors and tmux belong to no SSH session.
            with suppress(OSError):
                found |= terminals.of_account(self.account.uid)
        for name in found:
            terminals.write(name, text)
        return len(found)

    async def sleep(self, cause: Cause, because: str, called_off: Callable[[], bool]) -> bool:
        """Sleep now. True after a resume; false if `called_off` became true in time.

        If the machine stops, this does not return.
        """
        mode = self._mode()
        self.bus.publish(
            SleepBegan(reason=cause.value, because=because, mode=mode, awake=self.journal.awake)
        )
        await self._run_hooks(because, mode)
        if called_off():
            return False
        await self.checkpoint(self.current.value.stop_timeout)
        if called_off():
            return False
        for farewell in self.farewells:
            await farewell()
        if mode == "suspend":
            try:
                if not await self._suspend(because, called_off):
                    return False
            except Exception as error:
                # Whatever went wrong, a stop always works.
                self.bus.publish(SuspendFailed(problem=str(error) or repr(error)))
            else:
                return True
            if called_off():
                return False
        self.stop.because(
            Ending(
                f"sleep: {because}",
                f"swarm-agent: this machine goes to sleep ({because}). "
                "Connect again to wake it up.",
                status=0,
            )
        )
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    def _mode(self) -> str:
        mode = self.current.value.sleep_mode
        if mode != "auto":
            return mode
        fit = self.fly is not None and self.fly.unfit_to_suspend() is None
        return "suspend" if fit and os.path.exists(self.current.value.fly_api) else "stop"

    async def _run_hooks(self, because: str, mode: str) -> None:
        environ = {"SWARM_SLEEP_REASON": because, "SWARM_SLEEP_MODE": mode}
        ends = clock() + self.current.value.sleep_hook_timeout
        hooks, errors = await programs.find(HOOKS, self.account, self.children)
        for wrong in errors:
            self.bus.publish(HookFailed(hook=HOOKS, problem=str(wrong)))
        for hook in hooks:
            left = ends - clock()
            if left <= 0:
                problem = "not run: earlier hooks took all the time (SWARM_SLEEP_HOOK_TIMEOUT)"
                self.bus.publish(HookFailed(hook=hook.name, problem=problem))
                continue
            try:
                done = await programs.run(hook, self.children, left, environ)
            except Exception as error:
                # No failing hook blocks the sleep.
                self.bus.publish(HookFailed(hook=hook.name, problem=str(error) or repr(error)))
                continue
            if done.status.code:
                problem = f"ended with {done.status}: {done.said}"
                self.bus.publish(HookFailed(hook=hook.name, problem=problem))

    async def _suspend(self, because: str, called_off: Callable[[], bool]) -> bool:
        """Be frozen and resumed; false if called off just before.

        Raises `ApiError`, or any other error, if the machine was not suspended.
        """
        if self.fly is None:
            raise ApiError("this machine is not on Fly.io, and only Fly.io can suspend it")
        await homekeeper.bring_back(self.current.value, self.account, self.children, self.bus)
        await self.journal.end(f"suspended: {because}")
        await sync_disks()
        if called_off():
            return False
        freeze, arrivals = _Freeze(), self.gate.arrivals

        def awake_again() -> bool:
            # A short freeze leaves no trace except the client who ended it.
            return freeze.happened() or self.gate.arrivals > arrivals

        from agent.platform import flyapi  # imports an HTTP client, which the boot does not need

        asking = asyncio.create_task(flyapi.suspend(self.fly, API_PATIENCE))
        try:
            while not asking.done():
                await asyncio.wait([asking], timeout=TICK)
                if awake_again():
                    return True  # the answer may be lost during the freeze
            await asking
            patience = clock() + FREEZE_PATIENCE
            while clock() < patience:
                await asyncio.sleep(TICK)
                if awake_again():
                    return True
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await self.journal.beat()
        raise ApiError(f"the platform agreed, but nothing happened for {FREEZE_PATIENCE:g} s")


class _Freeze:
    """Notices that the process was frozen: time passed without it, or jumped afterwards.

    A frozen process sees a gap on every clock. In a restored virtual machine the steady clocks
    continue where they stopped, and the wall clock lags and then jumps.
    """

    def __init__(self) -> None:
        self._ticked = clock()
        self._offset = time.time() - self._ticked

    def happened(self) -> bool:
        """We were frozen since the last call."""
        before, self._ticked = self._ticked, clock()
        offset = time.time() - self._ticked
        return self._ticked - before > JUMP or abs(offset - self._offset) > JUMP
