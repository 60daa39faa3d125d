"""From the open listener to the exit status: stop signals, the command of `run --`, the end."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.access.gate import Gate
from agent.access.sessions import Sessions
from agent.events import Bus, CommandEnded, CommandStarted, StopBegan, StopForced, Stopped, Trouble
from agent.exits import exit_status_of
from agent.init import foreground, shutdown
from agent.init.children import Child, Children

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

KILLED = 128 + signal.SIGKILL

SERVICES_LEAVE = 3.0
"""Seconds of the budget that the services leave to sessions and to SIGKILL."""


if TYPE_CHECKING:
    from agent.handover import HeldStop


@dataclass(frozen=True, slots=True)
class Ending:
    """Why it ends, what is shown on the terminals, and the exit status where it is not a command's.

    Sleep is status 0 whatever the command of `run --` says to its signal: the platform would start
    the machine again.
    """

    reason: str
    farewell: str
    status: int | None = None

    @classmethod
    def stopping(cls, reason: str) -> "Ending":
        """An end that somebody else wants."""
        return cls(reason, f"swarm-agent: this machine is stopping ({reason}); your session ends.")


class Reload(Exception):
    """The agent shall re-execute in place: it reads everything anew, and nothing ends."""


class Stop:
    """Waits for a reason to stop; a second stop signal means "now" (`hurry`).

    With `held` it knows what came before this process re-executed in place.
    """

    def __init__(self, held: "HeldStop | None" = None) -> None:
        loop = asyncio.get_running_loop()
        self._ending: asyncio.Future[Ending] = loop.create_future()
        self.hurry = asyncio.Event()
        self.signal: signal.Signals | None = None
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        if os.isatty(0):
            # Whoever started it by hand has closed the terminal.
            loop.add_signal_handler(signal.SIGHUP, self._signalled, signal.SIGHUP)
        else:
            # Without a handler it would end the machine's init.
            loop.add_signal_handler(signal.SIGHUP, lambda: None)
        self._late: Ending | None = None
        """What came after `reload`."""
        if held is not None:
            self._remember(held)

    @property
    def decided(self) -> bool:
        """The machine ends: nothing came before that."""
        return self._ending.done() and self._ending.exception() is None

    @property
    def ending(self) -> Ending | None:
        """How the machine is to end, if it is."""
        return self._ending.result() if self.decided else self._late

    def hold(self) -> "HeldStop":
        """For the agent that this process becomes."""
        from agent.handover import HeldStop

        return HeldStop(self.ending, self.signal, self.hurry.is_set())

    def _remember(self, held: "HeldStop") -> None:
        self.signal = held.signal
        if held.hurry:
            self.hurry.set()
        if held.ending is not None:
            self.because(held.ending)

    def because(self, ending: Ending) -> None:
        """Stop now; the first ending counts."""
        if not self._ending.done():
            self._ending.set_result(ending)
        elif self.ending is None:
            self._late = ending

    def reload(self) -> None:
        """Re-execute in place, unless the machine is about to end."""
        if not self._ending.done():
            self._ending.set_exception(Reload())

    async def wait(self) -> Ending:
        """The ending, once there is one. Raises `Reload`."""
        return await asyncio.shield(self._ending)

    def _signalled(self, number: signal.Signals) -> None:
        if self.signal is not None:
            self.hurry.set()
        self.signal = number
        self.because(Ending.stopping(number.name))


class Life:
    """Runs the command, waits for the end, and brings everything down within the budget."""

    def __init__(
        self,
        children: Children,
        sessions: Sessions,
        bus: Bus,
        stop: Stop,
        budget: float,
        stop_services: Callable[[float], Awaitable[None]],
    ) -> None:
        self.command: Child | None = None
        """The command of `run --` while it runs, and after."""
        self.command_status: int | None = None
        """The exit status of a command that ended before this process re-executed in place."""
        self._children = children
        self._sessions = sessions
        self._bus = bus
        self._stop = stop
        self._budget = budget
        self._stop_services = stop_services

    async def last(
        self, gate: Gate, argv: Sequence[str], environ: Mapping[str, str]
    ) -> tuple[int, str]:
        """Serve until it is time to stop, and stop; the container's exit status, and why.

        Raises `Reload`.
        """
        status = self.command_status or 0
        if argv and self.command is None and self.command_status is None:
            try:
                self._start(argv, environ)
            except OSError as error:
                status = exit_status_of(error)
                reason = f"cannot run {argv[0]}: {error.strerror}"
                self._bus.publish(Trouble(part="command", problem=reason))
                self._stop.because(Ending.stopping(reason))
        ending = await self._stop.wait()
        await self._end(gate, self.command, ending)
        if self.command is not None:
            exited = self.command.exited
            status = exited.result().code if exited.done() else KILLED
        return status if ending.status is None else ending.status, ending.reason

    def watch(self, command: Child, name: str) -> None:
        """Forward signals to the command, and end the machine when it has ended."""
        self.command = command
        foreground.forward_signals(asyncio.get_running_loop(), command)

        def ended(_: object) -> None:
            status = command.exited.result()
            self._bus.publish(CommandEnded(status=status.code))
            self._stop.because(Ending.stopping(f"{name} ended with {status}"))

        command.exited.add_done_callback(ended)

    def _start(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        command = foreground.start(self._children, argv, environ)
        self._bus.publish(CommandStarted(command=argv[0], pid=command.pid))
        self.watch(command, argv[0])

    async def _end_services(self, deadline: float) -> None:
        """Stop the services in their order, unless somebody is in a hurry or time runs out."""
        stopping = asyncio.ensure_future(self._stop_services(deadline - SERVICES_LEAVE))
        hurrying = asyncio.create_task(self._stop.hurry.wait())
        left = deadline - SERVICES_LEAVE - asyncio.get_running_loop().time()
        await asyncio.wait(
            [stopping, hurrying], timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED
        )
        for task in (stopping, hurrying):
            task.cancel()
        await asyncio.gather(stopping, hurrying, return_exceptions=True)

    async def _end(self, gate: Gate, command: Child | None, ending: Ending) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        gate.close()
        self._bus.publish(
            StopBegan(reason=ending.reason, sessions=len(self._sessions), budget=self._budget)
        )
        self._sessions.end_with(f"the machine stopped: {ending.reason}")
        for session in self._sessions:
            session.tell(ending.farewell)
        asked: set[int] = set()
        if command is not None and command.running:
            command.send_group(self._stop.signal or signal.SIGTERM)
            asked = {command.pid}
        await self._end_services(begun + self._budget)
        killed = await shutdown.end_descendants(begun + self._budget, self._stop.hurry, asked)
        if killed:
            self._bus.publish(
                StopForced(
                    processes=killed,
                    reason="second stop signal" if self._stop.hurry.is_set() else "time is over",
                )
            )
        # The last processes may be zombies still, and their ends not yet told.
        self._children.reap()
        await asyncio.sleep(0)
        self._bus.publish(
            Stopped(
                reason=ending.reason,
                seconds=loop.time() - begun,
                orphans_reaped=self._children.orphans_reaped,
            )
        )
