"""Bringing everything down within the budget of SWARM_STOP_TIMEOUT."""

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
"""Seconds of the budget that the services leave to sessions and to SIGKILL."""


async def bring_down(
    machine: Machine, command: Command, supervisor: "Supervisor | None", ending: Ending
) -> None:
    """Take no more connections, and end every process below us: services first, in their order."""
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
            asked |= _heard(command.child.pid)
    if supervisor is not None:
        await _end_services(supervisor, begun + budget - SERVICES_LEAVE, stop.hurry)
    killed = await shutdown.end_descendants(begun + budget, stop.hurry, asked)
    if killed:
        reason = "second stop signal" if stop.hurry.is_set() else "time is over"
        bus.publish(StopForced(processes=killed, reason=reason))
    # The last processes may be zombies still, and their ends not acted on yet.
    machine.children.reap()
    await asyncio.sleep(0)
    bus.publish(
        Stopped(
            reason=ending.reason,
            seconds=loop.time() - begun,
            orphans_reaped=machine.children.orphans_reaped,
        )
    )


def _heard(group: int) -> set[int]:
    """Those of a group who can have heard SIGTERM."""
    return {
        process.pid
        for process in proctree.descendants(os.getpid())
        if process.group == group
        and process.state != "T"
        and not proctree.ignores(process.pid, signal.SIGTERM)
    }


async def _end_services(supervisor: "Supervisor", deadline: float, hurry: asyncio.Event) -> None:
    """Stop the services in their order, unless somebody is in a hurry or time runs out."""
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
    """Remove the egress rules: where the network is the host's, they must not stay."""
    from agent.egress.wall import EgressError

    try:
        await wall.remove()
    except EgressError as error:
        bus.publish(Notice(part="egress", notice=str(error)))
