"""The command of `run --`: forwards signals to it, and stops the machine when it ends."""

import asyncio
import signal
from dataclasses import dataclass

from agent.bus import Bus
from agent.events import CommandEnded, CommandStarted, Trouble
from agent.exits import exit_status_of
from agent.init import foreground
from agent.init.children import Child
from agent.life.ending import Ending, Stop
from agent.machine import Machine

KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Command:
    """The command of `run --` in its process. `refused` is its status if it could not be started.

    Without a command both are empty, and the status is 0.
    """

    child: Child | None = None
    refused: int = 0

    @property
    def status(self) -> int:
        """The exit status if the command decides it: KILLED while it runs."""
        if self.child is None:
            return self.refused
        return self.child.exited.result().code if self.child.exited.done() else KILLED


def start(machine: Machine) -> Command:
    """Start the command, if there is one."""
    argv = machine.command
    if not argv:
        return Command()
    try:
        child = foreground.start(machine.children, argv, machine.environ)
    except OSError as error:
        reason = f"cannot run {argv[0]}: {error.strerror}"
        machine.bus.publish(Trouble(part="command", problem=reason))
        machine.stop.because(Ending.stopping(reason))
        return Command(refused=exit_status_of(error))
    machine.bus.publish(CommandStarted(command=argv[0], pid=child.pid))
    return Command(child)


def attend(command: Command, machine: Machine) -> None:
    """Forward signals to the command; the machine stops when it ends."""
    child = command.child
    if child is not None:
        foreground.forward_signals(asyncio.get_running_loop(), child)
        child.exited.add_done_callback(
            lambda _: _ended(child, machine.command[0], machine.stop, machine.bus)
        )


def _ended(child: Child, name: str, stop: Stop, bus: Bus) -> None:
    status = child.exited.result()
    bus.publish(CommandEnded(status=status.code))
    stop.because(Ending.stopping(f"{name} ended with {status}"))
