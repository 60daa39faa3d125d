"""One run of the agent, on one page: Starting → Serving → Stopping, or Reexecuting.

An unexpected error at the top, and `swarm-agent reload`, re-execute in place: the process id, the
listener, the sessions and the services stay. The kernel keeps the descriptors open and the clients
waiting while the new agent starts.
"""

import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from agent import words
from agent.bus import Bus
from agent.clock import clock
from agent.events import (
    AgentFailed,
    BootFailed,
    ErrorUnhandled,
    Notice,
    Reexecuted,
    SettingsRefused,
)
from agent.health import Health, Reexecutions
from agent.init import shutdown
from agent.init.children import Children, reset_signals, unblock_signals
from agent.init.foreground import FORWARDED
from agent.life.command import Command, attend, start
from agent.life.ending import STOP_SIGNALS, Ending, Stop, StopRecord
from agent.life.parts import Parts, keep_running
from agent.life.records import Records
from agent.life.start import FATAL, open_ssh
from agent.life.stop import bring_down
from agent.log import Log
from agent.machine import Machine
from agent.platform.account import AccountError
from agent.settings import Settings, SettingsError, load
from agent.settings.current import Current

HANDED = "_SWARM_HANDED"
"""The environment variable that names the descriptor with the records of the previous agent."""

PARTS_END = 10.0
"""Seconds that the parts may take to write pending data: a disk may hang."""

STRANGERS_END = 5.0
"""Seconds that children of another version of the agent may take to end."""

SETTLE = 5.0
"""Seconds that signals may take to be handled before the process re-executes."""

BANS_KEPT = 10_000
"""Bans that are passed on when the process re-executes; the database has the others."""


@dataclass(frozen=True, slots=True)
class Starting:
    """SSH is being opened. `strangers`: there are children that this agent does not know."""

    strangers: bool


@dataclass(frozen=True, slots=True)
class Serving:
    """SSH is open; the parts are made and run in the background."""

    command: Command
    parts: Parts
    running: "asyncio.Task[None]"


@dataclass(frozen=True, slots=True)
class Stopping:
    """Everything is being stopped."""

    serving: Serving
    ending: Ending


@dataclass(frozen=True, slots=True)
class Reexecuting:
    """The process re-executes as a new agent, after a reload or an error."""

    serving: Serving
    reload: bool = False


@dataclass(frozen=True, slots=True)
class Over:
    """Everything has ended; the process exits with `status`."""

    status: int


Phase = Starting | Serving | Stopping | Reexecuting | Over


def run(command: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Be the container's init until a stop signal or the end of `command`. Returns the status."""
    begun = time.monotonic()
    reset_signals()
    runner, children = asyncio.Runner(), Children()
    file = environ.pop(HANDED, None)
    inherited = None
    if file is not None:
        from agent.life.reexec import take

        inherited = runner.run(take(int(file), children))
    records = inherited or Records()
    try:
        settings, refused = _settings(environ, records.find(Settings))
    except SettingsError as error:
        for problem in error.problems:
            sys.stderr.write(f"swarm-agent: {problem}\n")
        return os.EX_CONFIG
    machine = _machine(settings, environ, command, begun, records, children)
    life = _Life(machine, records, runner)
    if refused:
        machine.bus.publish(SettingsRefused(problem=refused))
    phase: Phase = Starting(strangers=file is not None and inherited is None)
    try:
        while True:
            match phase:
                case Starting():
                    phase = life.step(life.start(phase), Over(os.EX_SOFTWARE))
                case Serving():
                    phase = life.step(life.serve(phase), Reexecuting(phase))
                case Stopping():
                    phase = life.step(life.stop(phase), Over(os.EX_SOFTWARE))
                case Reexecuting():
                    phase = life.re_execute(phase)
                case Over():
                    return phase.status
    finally:
        machine.log.close()


class _Life:
    """The state that the phases of one run share. Each phase returns the next one."""

    def __init__(self, machine: Machine, records: Records, runner: asyncio.Runner) -> None:
        self.machine = machine
        self.records = records
        self._runner = runner

    def step(self, phase: Awaitable[Phase], after_error: Phase) -> Phase:
        """Run a phase; an unexpected error is reported and leads to `after_error`."""

        async def coroutine() -> Phase:
            return await phase

        try:
            return self._runner.run(coroutine())
        except Exception as error:
            problem = words.error(error)
            past = self.machine.past
            past.failed(problem, clock())
            self.machine.bus.publish(AgentFailed(problem=problem, where=_where(error)))
            return Over(os.EX_SOFTWARE) if past.too_many else after_error

    async def start(self, phase: Starting) -> Phase:
        """Open SSH; the parts follow in the background."""
        machine, records = self.machine, self.records
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unhandled)
        machine.stop = Stop(records.of(StopRecord, StopRecord))
        command = records.find(Command)
        if command is not None:
            attend(command, machine)
        unblock_signals()
        machine.children.watch(loop)
        if phase.strangers:
            await _end_strangers(machine)
        try:
            if not await self._open_or_stop(first=not records.inherited and not phase.strangers):
                return Over(os.EX_OK)
        except FATAL as error:
            machine.bus.publish(BootFailed(problem=str(error)))
            return Over(os.EX_CONFIG if isinstance(error, AccountError) else os.EX_UNAVAILABLE)
        parts = Parts(machine, records)
        if records.inherited:
            parts.make_at_once()
            machine.bus.publish(_reexecuted(machine, parts))
        if command is None:
            command = records.of(Command, partial(start, machine))
            attend(command, machine)
        running = asyncio.create_task(keep_running("parts", parts.run, machine.bus))
        return Serving(command, parts, running)

    async def serve(self, phase: Serving) -> Phase:
        """Wait for a reason to end or to re-execute."""
        decision = await self.machine.stop.wait()
        if isinstance(decision, Ending):
            return Stopping(phase, decision)
        return Reexecuting(phase, reload=True)

    async def stop(self, phase: Stopping) -> Phase:
        """Stop everything, and record how this run ended."""
        command, parts, ending = phase.serving.command, phase.serving.parts, phase.ending
        await bring_down(self.machine, command, parts.supervisor, ending)
        self.machine.log.start()  # the next steps may wait for a disk
        await _end_parts(phase.serving)
        await parts.finish(ending.reason)
        return Over(command.status if ending.status is None else ending.status)

    def re_execute(self, phase: Reexecuting) -> Phase:
        """Re-execute as a new agent; if that fails, the process exits."""
        machine, records = self.machine, self.records
        machine.bus.subscribe(phase.serving.parts.missed.append)
        with suppress(Exception):  # the event loop itself may be broken
            self._runner.run(_end_parts(phase.serving))
        if phase.reload:  # not before: a client that polls the count must reach the next agent
            machine.past.reloads += 1
        # Blocked signals stay pending through execve(2), and reach the new agent.
        signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, *FORWARDED})
        with suppress(Exception):  # as above
            self._runner.run(_pause(machine.children))
        # Nothing may happen in the event loop from here on.
        try:
            machine.gate.jail.keep_latest(BANS_KEPT)
            records.put(machine.current.value)
            machine.log.close()
            from agent.life.reexec import re_execute

            re_execute(records, machine.environ, HANDED, machine.current.value.run_dir)
        except Exception as failure:
            sys.stderr.write(f"swarm-agent: cannot re-execute {sys.executable}: {failure!r}\n")
            return Over(os.EX_SOFTWARE)

    async def _open_or_stop(self, *, first: bool) -> bool:
        """Open SSH. False if a stop came first; then all descendants have been ended.

        A program that hangs while SSH is being opened must not delay a stop.
        """
        machine = self.machine
        opening = asyncio.create_task(self._open(first=first))
        stopping = asyncio.create_task(machine.stop.wait())
        await asyncio.wait([opening, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if opening.done():
            opening.result()
            return True
        opening.cancel()
        await asyncio.wait([opening])
        before = self.records.find(Settings)
        if before is not None:  # so that inherited sessions and services are ended in order
            machine.current.value = before
            await open_ssh(machine, self.records, first=False, configure=False)
            return True
        deadline = asyncio.get_running_loop().time() + machine.current.value.stop_timeout
        await shutdown.end_descendants(deadline, machine.stop.hurry, set())
        return False

    async def _open(self, *, first: bool) -> None:
        """Open SSH; if the new settings do not work, with those from before the re-execution."""
        machine, before = self.machine, self.records.find(Settings)
        same = before == machine.current.value
        try:
            await open_ssh(machine, self.records, first=first, configure=not same)
        except FATAL as error:
            if before is None or same:
                raise
            machine.bus.publish(SettingsRefused(problem=str(error)))
            machine.current.value = before
            await open_ssh(machine, self.records, first=first, configure=True)

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        problem = context["message"] if error is None else f"{context['message']}: {error!r}"
        self.machine.bus.publish(ErrorUnhandled(problem=problem, where=_where(error)))


def _machine(
    settings: Settings,
    environ: Mapping[str, str],
    command: Sequence[str],
    begun: float,
    records: Records,
    children: Children,
) -> Machine:
    log = Log(settings.log_format, settings.log_level, settings.log_line_limit)
    bus, health = Bus(), Health()
    bus.subscribe(log.write)
    bus.subscribe(health.hear)
    past = records.of(Reexecutions, Reexecutions)
    return Machine(Current(settings), environ, command, begun, past, bus, log, children, health)


async def _end_parts(serving: Serving) -> None:
    serving.running.cancel()
    await asyncio.wait([serving.running], timeout=PARTS_END)


async def _pause(children: Children) -> None:
    async with asyncio.timeout(SETTLE):
        await children.pause()


async def _end_strangers(machine: Machine) -> None:
    machine.bus.publish(
        Notice(
            part="agent",
            notice="it was re-executed as another version, which does not know the open "
            "sessions and services: they are ended",
        )
    )
    deadline = asyncio.get_running_loop().time() + STRANGERS_END
    await shutdown.end_descendants(deadline, machine.stop.hurry, set())


def _settings(environ: Mapping[str, str], before: Settings | None) -> tuple[Settings, str]:
    """The settings, and the reason if the previous ones stay in force. Raises `SettingsError`."""
    try:
        wanted = load(environ, privileged=os.geteuid() == 0).settings
    except SettingsError as error:
        if before is None:
            raise
        # The machine runs with them: a file that was damaged since must not end it.
        return before, str(error)
    if before is None:
        return wanted, ""
    # These paths are in use: they change at the next start.
    return replace(
        wanted,
        volume=before.volume,
        run_dir=before.run_dir,
        home_links=before.home_links,
    ), ""


def _reexecuted(machine: Machine, parts: Parts) -> Reexecuted:
    supervisor = parts.supervisor
    return Reexecuted(
        failures=machine.past.failures,
        reloads=machine.past.reloads,
        connections=machine.gate.connections,
        services=0 if supervisor is None else len(supervisor.runners),
    )


def _where(error: BaseException | None) -> str:
    return "" if error is None else "".join(traceback.format_exception(error))
