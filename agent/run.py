"""One execution of the agent: from exec to the exit status, or to the agent that it becomes.

An error that nobody foresaw, and `swarm-agent reload`, re-execute in place: the process id, the
listener, the sessions and the services stay. The kernel keeps the descriptors open and the clients
waiting while the new agent starts.
"""

import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.access.gate import Gate, clock
from agent.access.sessions import Sessions
from agent.boot import FATAL, Core, Opened, open_ssh
from agent.events import (
    AgentFailed,
    BootFailed,
    Bus,
    ErrorUnhandled,
    Event,
    Notice,
    Reexecuted,
    SettingsRefused,
)
from agent.health import Health, Reexecutions
from agent.init import shutdown
from agent.init.children import Child, Children, reset_signals, unblock_signals
from agent.init.foreground import FORWARDED, forward_signals
from agent.log import Log
from agent.parts import Parts, Spine, keep_running
from agent.platform.account import AccountError
from agent.settings import Settings, SettingsError, load
from agent.settings.current import Current
from agent.stop import STOP_SIGNALS, Life, Reload, Stop

if TYPE_CHECKING:
    from agent.handover import Handover

EXIT_UNAVAILABLE = 69
EXIT_SOFTWARE = 70
EXIT_CONFIG = 78
"""Exit statuses, after sysexits(3). 0 is a stop that was asked for."""

HANDOVER = "_SWARM_HANDOVER"
"""The environment variable by which an agent finds what the one before it has handed over."""

PARTS_END = 10.0
"""Seconds that the parts may take to write what they have: a disk may hang."""

STRANGERS_END = 5.0
"""Seconds that children of another version of the agent may take to end."""


def run(command: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Be the container's init until a stop signal or the end of `command`; the exit status."""
    begun = time.monotonic()
    reset_signals()
    inherited = environ.pop(HANDOVER, None)
    held = None if inherited is None else _take(int(inherited))
    try:
        settings, refused = _settings(environ, held)
    except SettingsError as error:
        for problem in error.problems:
            sys.stderr.write(f"swarm-agent: {problem}\n")
        return EXIT_CONFIG
    log = Log(settings.log_format, settings.log_level, settings.log_line_limit)
    bus = Bus()
    bus.subscribe(log.write)
    if refused:
        bus.publish(SettingsRefused(problem=refused))
    agent = Agent(settings, environ, command, bus, log, begun)
    runner = asyncio.Runner()
    try:
        return runner.run(agent.serve(held, strangers=inherited is not None and held is None))
    except Exception as error:
        return _become(agent, runner, error)
    finally:
        log.close()


class Agent:
    """The agent of one execution."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        command: Sequence[str],
        bus: Bus,
        log: Log,
        begun: float,
    ) -> None:
        self.core = Core(settings, environ, Children(), Sessions(), bus)
        self.log = log
        self.past = Reexecutions()
        self.was_ending = False
        """It was about to end in good order when it failed."""
        self.stop: Stop | None = None
        self._missed: list[Event] = []
        self._command = command
        self._begun = begun
        self._opened: Opened | None = None
        self._parts: Parts | None = None
        self._life: Life | None = None

    async def serve(self, held: "Handover | None", *, strangers: bool) -> int:
        """Open SSH, serve, and end in good order; the exit status.

        With `strangers` this process has children that it does not know. Raises `Reload`, and
        whatever goes wrong that nobody foresaw.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unhandled)
        bus, children = self.core.bus, self.core.children
        stop = self.stop = Stop(None if held is None else held.stop)
        command = None if held is None else self._take_over(held)
        unblock_signals()
        children.watch(loop)
        health = Health()
        bus.subscribe(health.hear)
        if strangers:
            await self._end_strangers(stop)
        try:
            opened = await self._open(held, first=held is None and not strangers)
        except FATAL as error:
            bus.publish(BootFailed(problem=str(error)))
            return EXIT_CONFIG if isinstance(error, AccountError) else EXIT_UNAVAILABLE
        self._opened = opened
        parts = self._parts = Parts(self._spine(opened, health, stop))
        life = self._life = Life(
            children,
            self.core.sessions,
            bus,
            stop,
            self.core.settings.stop_timeout,
            parts.stop_services,
        )
        if held is not None:
            parts.take_over(held)
            life.command_status = held.command_status
            bus.publish(_reexecuted(held))
        if command is not None:
            life.watch(command, self._command[0])
        return await self._live(life, parts, opened.gate)

    async def _live(self, life: Life, parts: Parts, gate: Gate) -> int:
        """Serve until the end, with everything beside SSH; the exit status."""
        bus = self.core.bus
        rest = asyncio.create_task(keep_running("parts", parts.run, bus))
        try:
            status, reason = await life.last(gate, self._command, self.core.environ)
            self.log.start()  # what is still to come may wait for a disk
        except Exception:
            self.was_ending = self.stop is not None and self.stop.decided
            bus.subscribe(self._missed.append)
            raise
        finally:
            rest.cancel()
            await asyncio.wait([rest], timeout=PARTS_END)
        await parts.last_word(reason)
        return status

    async def _open(self, held: "Handover | None", *, first: bool) -> Opened:
        """Open SSH; with settings that do not work, as it was before this process re-executed."""
        same = held is not None and held.settings == self.core.settings
        try:
            return await open_ssh(self.core, self._begun, held, first=first, configure=not same)
        except FATAL as error:
            if held is None or same:
                raise
            self.core.bus.publish(SettingsRefused(problem=str(error)))
            self.core = replace(self.core, settings=held.settings)
            return await open_ssh(self.core, self._begun, held, first=first, configure=True)

    def hold(self) -> "Handover | None":
        """Everything that the agent must know that this process becomes; None before SSH is open.

        Nothing may happen in the event loop from here on.
        """
        from agent.handover import Handover

        if self._opened is None or self._parts is None or self._life is None or self.stop is None:
            return None
        command, wall = self._life.command, self._opened.wall
        status = self._life.command_status
        if command is not None and not command.running:
            status, command = command.exited.result().code, None
        return Handover(
            past=self.past,
            settings=self._parts.settings,
            stop=self.stop.hold(),
            command=None if command is None else command.pid,
            command_status=status,
            missed=tuple(self._missed),
            gate=self._opened.gate.hold(),
            egress=None if wall is None else wall.seen,
            parts=self._parts.hold(),
        )

    def _take_over(self, held: "Handover") -> Child | None:
        self.past = held.past
        children = self.core.children
        children.adopt(held.pids)
        if held.command is None:
            return None
        command = children.adopted(held.command)
        # Before anything is unblocked that was sent meanwhile.
        forward_signals(asyncio.get_running_loop(), command)
        return command

    def _spine(self, opened: Opened, health: Health, stop: Stop) -> Spine:
        return Spine(
            current=Current(self.core.settings),
            environ=self.core.environ,
            account=opened.account,
            children=self.core.children,
            sessions=self.core.sessions,
            keyring=opened.keyring,
            session_env=opened.session_env,
            wall=opened.wall,
            gate=opened.gate,
            health=health,
            past=self.past,
            stop=stop,
            bus=self.core.bus,
            log=self.log,
            began=self._begun,
        )

    async def _end_strangers(self, stop: Stop) -> None:
        self.core.bus.publish(
            Notice(
                part="agent",
                notice="it was re-executed as another version, which knows nothing of the "
                "sessions and services that were open: they are ended",
            )
        )
        deadline = asyncio.get_running_loop().time() + STRANGERS_END
        await shutdown.end_descendants(deadline, stop.hurry, set())

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        problem = context["message"] if error is None else f"{context['message']}: {error!r}"
        self.core.bus.publish(ErrorUnhandled(problem=problem, where=_where(error)))


def _become(agent: Agent, runner: asyncio.Runner, error: Exception) -> int:
    """Re-execute in place; where that is not possible, the exit status."""
    if isinstance(error, Reload):
        agent.past = agent.past.reloaded()
    else:
        problem = f"{type(error).__name__}: {error}"
        agent.past = agent.past.failed(problem, clock())
        agent.core.bus.publish(AgentFailed(problem=problem, where=_where(error)))
    if agent.past.too_many or agent.was_ending:
        return EXIT_SOFTWARE
    # Blocked signals wait through execve(2), and are heard by the new agent.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, *FORWARDED})
    agent.core.children.pause()
    with suppress(Exception):  # the loop itself may be what is broken
        runner.run(_settled())
    try:
        held = agent.hold()
        if held is None:
            return EXIT_SOFTWARE
        agent.log.close()
        from agent.handover import re_execute

        re_execute(held, agent.core.environ, HANDOVER)
    except Exception as failure:
        sys.stderr.write(f"swarm-agent: cannot re-execute {sys.executable}: {failure!r}\n")
        return EXIT_SOFTWARE


async def _settled() -> None:
    """What has happened is told: the ends of children, and signals that came before the block."""
    for _ in range(3):
        await asyncio.sleep(0)


def _take(file: int) -> "Handover | None":
    from agent.handover import take

    return take(file)


def _settings(environ: Mapping[str, str], held: "Handover | None") -> tuple[Settings, str]:
    """The settings, and why they are those from before if they are. Raises `SettingsError`."""
    try:
        wanted = load(environ, privileged=os.geteuid() == 0).settings
    except SettingsError as error:
        if held is None:
            raise
        # The machine runs with them: a file that was spoilt since must not end it.
        return held.settings, str(error)
    if held is None:
        return wanted, ""
    # Where things lie is for the next start: they lie there.
    return replace(
        wanted,
        volume=held.settings.volume,
        run_dir=held.settings.run_dir,
        home_links=held.settings.home_links,
    ), ""


def _reexecuted(held: "Handover") -> Reexecuted:
    services = held.parts.services
    return Reexecuted(
        failures=held.past.failures,
        reloads=held.past.reloads,
        connections=len(held.gate.connections),
        services=0 if services is None else len(services.services),
    )


def _where(error: BaseException | None) -> str:
    return "" if error is None else "".join(traceback.format_exception(error))
