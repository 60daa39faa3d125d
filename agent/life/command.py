"""The command of `run --`: forwards signals to it, and ends the machine when it has ended."""

import asyncio
import signal
from dataclasses import dataclass

from agent.bus import Bus
from agent.events import CommandEnded, CommandStarted, Trouble
from agent.exits import exit_status_of
from agent.init import foreground
from agent.init.children import Child, HeldChild
from agent.life.ending import Ending, Stop
from agent.life.handed import Handed
from agent.machine import Machine

KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """The command's process."""

    child: HeldChild


class Command:
    """A command that was started, or could not be (`status`). Without one, the status is 0."""

    def __init__(self, child: Child | None = None, status: int = 0) -> None:
        self.child = child
        self._status = status

    def hold(self) -> CommandRecord | None:
        """Its process, if it has one."""
        return None if self.child is None else CommandRecord(self.child.hold())

    @property
    def status(self) -> int:
        """The exit status if the command decides it: KILLED while it runs."""
        if self.child is None:
            return self._status
        return self.child.exited.result().code if self.child.exited.done() else KILLED


def start_or_resume(machine: Machine, handed: Handed) -> Command:
    """Start the command, or re-register it after a re-execution."""
    if not machine.command:
        return Command()
    record = handed.of(CommandRecord)
    if record is not None:
        return _watched(machine.children.adopt(record.child), machine)
    return _start(machine)


def _start(machine: Machine) -> Command:
    argv = machine.command
    try:
        child = foreground.start(machine.children, argv, machine.environ)
    except OSError as error:
        reason = f"cannot run {argv[0]}: {error.strerror}"
        machine.bus.publish(Trouble(part="command", problem=reason))
        machine.stop.because(Ending.stopping(reason))
        return Command(status=exit_status_of(error))
    machine.bus.publish(CommandStarted(command=argv[0], pid=child.pid))
    return _watched(child, machine)


def _watched(child: Child, machine: Machine) -> Command:
    foreground.forward_signals(asyncio.get_running_loop(), child)
    child.exited.add_done_callback(
        lambda _: _ended(child, machine.command[0], machine.stop, machine.bus)
    )
    return Command(child)


def _ended(child: Child, name: str, stop: Stop, bus: Bus) -> None:
    status = child.exited.result()
    bus.publish(CommandEnded(status=status.code))
    stop.because(Ending.stopping(f"{name} ended with {status}"))
