"""Stopping everything within the budget of SWARM_STOP_TIMEOUT."""

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from agent.bus import Bus
from agent.events import Notice, StopBegan, StopForced, Stopped
from agent.init import proctree, shutdown
from agent.life.command import Command
from agent.life.ending import Ending
from agent.machine import Machine

if TYPE_CHECKING:
    from agent.egress.wall import Wall
    from agent.services.supervisor import Supervisor

SERVICES_LEAVE = 3.0
"""Seconds of the budget that services may not use: they are for sessions and for SIGKILL."""


async def bring_down(
    machine: Machine, command: Command, supervisor: "Supervisor | None", ending: Ending
) -> None:
    """Stop accepting connections and end all our descendants: services first, in their order."""
    loop = asyncio.get_running_loop()
    begun, budget = loop.time(), machine.current.value.stop_timeout
    bus, stop = machine.bus, machine.stop
    machine.gate.close()
    bus.publish(StopBegan(reason=ending.reason, sessions=len(machine.sessions), budget=budget))
    machine.sessions.end_with(f"the machine stopped: {ending.reason}")
    for session in machine.sessions:
        session.tell(ending.farewell)
    asked: set[int] = set()
    if command.child is not None and command.child.running:
        number = stop.signal or signal.SIGTERM
        command.child.send_group(number)
        asked = {command.child.pid}
        if number == signal.SIGTERM:  # to many programs a second one means "now"
            asked |= _acted_on_sigterm(command.child.pid)
    if supervisor is not None:
        await _end_services(supervisor, begun + budget - SERVICES_LEAVE, stop.hurry)
    killed = await shutdown.end_descendants(begun + budget, stop.hurry, asked)
    if killed:
        reason = "second stop signal" if stop.hurry.is_set() else "time is over"
        bus.publish(StopForced(processes=killed, reason=reason))
    # The last processes may still be zombies whose end was not handled yet.
    machine.children.reap()
    await asyncio.sleep(0)
    bus.publish(
        Stopped(
            reason=ending.reason,
            seconds=loop.time() - begun,
            orphans_reaped=machine.children.orphans_reaped,
        )
    )


def _acted_on_sigterm(group: int) -> set[int]:
    """The processes of a group that can have acted on SIGTERM."""
    return {
        process.pid
        for process in proctree.descendants(os.getpid())
        if process.group == group
        and process.state != "T"
        and not proctree.ignores(process.pid, signal.SIGTERM)
    }


async def _end_services(supervisor: "Supervisor", deadline: float, hurry: asyncio.Event) -> None:
    """Stop the services in their order, until `deadline` or until `hurry` is set."""
    stopping = asyncio.ensure_future(supervisor.stop_all(deadline))
    hurrying = asyncio.create_task(hurry.wait())
    left = deadline - asyncio.get_running_loop().time()
    await asyncio.wait(
        [stopping, hurrying], timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED
    )
    for task in (stopping, hurrying):
        task.cancel()
    await asyncio.gather(stopping, hurrying, return_exceptions=True)


async def take_down(wall: "Wall", bus: Bus) -> None:
    """Remove the egress rules: in the host's network namespace they must not stay."""
    from agent.egress.wall import EgressError

    try:
        await wall.remove()
    except EgressError as error:
        bus.publish(Notice(part="egress", notice=str(error)))
