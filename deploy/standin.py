"""A stand-in for the platform: the life of one machine, as Fly.io runs it.

It imitates: the first connection starts or resumes a sleeping machine, and is held meanwhile; a
machine that exits with status 0 stays stopped, one that fails is restarted, ten times in five
minutes (`on-failure`); the Machines API on a Unix socket inside the machine (state, start, stop,
suspend, wait); transitional states; a suspend freezes every process; SIGINT and a kill timeout stop
a machine; metrics are scraped every 15 seconds while it is awake (deploy/scrape.py).

It does not imitate: a virtual machine (the machine shares this computer's kernel, network and file
system outside its home, volume, /run and terminals, and its clocks keep running while it is
frozen), a root file system that is reset, health checks that route, limits, prices.
"""

import asyncio
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO

from deploy.edge import CHUNK, Streams
from deploy.freezer import Freezer
from deploy.machine import LocalMachine

RESTARTS, WITHIN = 10, 300.0
"""Restarts of a failing machine, and the seconds within which they are counted."""

HELD = 60.0
"""Seconds that a connection is held for a machine that does not answer."""

KILL_TIMEOUT = 30.0

_RETRY = 0.02


class MachineState(Enum):
    """States of a machine, as the Machines API names them."""

    CREATED = "created"
    STARTING = "starting"
    STARTED = "started"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    REPLACING = "replacing"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


ASLEEP = (MachineState.CREATED, MachineState.STOPPED, MachineState.SUSPENDED)
ON_THE_WAY = (
    MachineState.STARTING,
    MachineState.STOPPING,
    MachineState.SUSPENDING,
    MachineState.REPLACING,
)


@dataclass(frozen=True)
class Identity:
    """The platform's facts about a machine, besides the choices of the user."""

    app: str = "swarm-local"
    machine: str = "d8e0standin"
    memory_mb: int = 1024
    region: str = "lap"
    cpu_kind: str = "shared"
    cpus: int = 1

    def environ(self) -> dict[str, str]:
        """The platform's variables (fly.io/docs/machines/runtime-environment)."""
        return {
            "FLY_APP_NAME": self.app,
            "FLY_MACHINE_ID": self.machine,
            "FLY_ALLOC_ID": self.machine,
            "FLY_REGION": self.region,
            "FLY_PROCESS_GROUP": "app",
            "FLY_VM_MEMORY_MB": str(self.memory_mb),
            "PRIMARY_REGION": self.region,
        }


class StandIn:
    """Starts, stops, suspends and resumes a machine. `tell` gets each change in words.

    Changes of `environ` apply from the next start, of `autostart` from the next connection.
    `pace` is how many seconds each transitional state lasts at least.
    """

    def __init__(
        self,
        machine: LocalMachine,
        environ: Mapping[str, str],
        port: int,
        tell: Callable[[str], None],
        *,
        identity: Identity | None = None,
        output: IO[bytes] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self.identity = identity or Identity()
        self.state = MachineState.STOPPED
        self.starts = 0
        self.resumes = 0
        self.autostart = True
        self.pace = 0.0
        self.environ = dict(environ)
        self.last_status: int | None = None
        self._machine = machine
        self._port = port
        self._tell = tell
        self._output = output
        self._command = command
        self._freezer = Freezer(machine.folder.name + f"-{port}")
        self._changed = asyncio.Condition()
        self._one_at_a_time = asyncio.Lock()
        self._failures: deque[float] = deque(maxlen=RESTARTS)
        self._watching: asyncio.Task[None] | None = None

    async def connect(self, client: str) -> Streams:
        """A connection to the machine, started or resumed for it. Raises `OSError`."""
        end = time.monotonic() + HELD
        while True:
            if self.autostart:
                await self.wake(f"a connection from {client}")
            elif self.state in ASLEEP:
                raise ConnectionRefusedError("the machine is stopped, and its autostart is off")
            try:
                return await asyncio.open_connection("127.0.0.1", self._port, limit=CHUNK)
            except OSError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(_RETRY)

    async def wake(self, because: str) -> None:
        """Start or resume a sleeping machine; does nothing if it is awake."""
        async with self._one_at_a_time:
            if self.state is MachineState.SUSPENDED:
                await self.resume(because)
            elif self.state in ASLEEP:
                await self.start(because)

    async def start(self, because: str) -> None:
        """Start a stopped machine."""
        self._tell(f"the machine starts: {because}")
        self.starts += 1
        await self._pass(MachineState.STARTING)
        self._machine.start(
            self.identity.environ() | self.environ,
            command=self._command,
            prefix=self._freezer.prefix(),
            new_session=True,
            stdout=self._output,
            stderr=self._output,
        )
        await self._set(MachineState.STARTED)
        self._watching = asyncio.create_task(self._watch())

    async def suspend(self) -> None:
        """Freeze a running machine."""
        async with self._one_at_a_time:
            if self.state is MachineState.STARTED:
                await self._pass(MachineState.SUSPENDING)
                await asyncio.to_thread(self._freezer.freeze, self._machine.init)
                self._tell("the machine is suspended: every process is frozen")
                await self._set(MachineState.SUSPENDED)

    async def resume(self, because: str) -> None:
        """Thaw a suspended machine."""
        self._tell(f"the machine resumes: {because}")
        self.resumes += 1
        await self._pass(MachineState.STARTING)
        await asyncio.to_thread(self._freezer.thaw)
        await self._set(MachineState.STARTED)

    async def stop(self, number: int = signal.SIGINT, *, kill_after: float = KILL_TIMEOUT) -> None:
        """Stop the machine as the platform does: a signal, then a kill."""
        async with self._one_at_a_time:
            if self.state is MachineState.SUSPENDED:
                await self.resume("it is stopped")
            if self._watching is None or not self._machine.running():
                return
            await self._pass(MachineState.STOPPING)
            with suppress(ProcessLookupError):  # it has just exited
                self._machine.signal(number)
        try:
            async with asyncio.timeout(kill_after):
                await asyncio.shield(self._watching)
        except TimeoutError:
            self._tell(f"the machine is killed: it did not stop within {kill_after:g} s")
            self._machine.kill()
            await self._watching

    async def replace(self) -> None:
        """Stop the machine for its next version; a suspended one loses its memory."""
        if self.state is not MachineState.SUSPENDED:
            await self.stop()
            return
        async with self._one_at_a_time:
            self._tell("the machine is replaced: its suspended memory is lost")
            await self._pass(MachineState.REPLACING)
            self._machine.kill(wait=False)
            await asyncio.to_thread(self._freezer.thaw)
        if self._watching is not None:
            await self._watching

    async def wait_for(self, *states: MachineState) -> None:
        """Wait until the machine is in one of these states."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.state in states)

    async def close(self) -> None:
        """Stop the machine and leave nothing behind."""
        await self.stop()
        self._freezer.remove()

    async def _watch(self) -> None:
        """Wait for the end of one run of the machine, and restart it if it failed."""
        status = await asyncio.to_thread(self._machine.wait)
        self.last_status = status
        was_told_to = self.state in (MachineState.STOPPING, MachineState.REPLACING)
        async with self._one_at_a_time:
            await self._set(MachineState.STOPPED)
            self._tell(f"the machine has stopped (status {status})")
            if status == 0 or was_told_to:
                return
            now = time.monotonic()
            if len(self._failures) == RESTARTS and now - self._failures[0] < WITHIN:
                self._tell(f"it failed {RESTARTS} times in {WITHIN:g} s: it stays stopped")
                return
            self._failures.append(now)
            await self.start(f"it ended with status {status}")

    async def _pass(self, state: MachineState) -> None:
        await self._set(state)
        if self.pace:
            await asyncio.sleep(self.pace)

    async def _set(self, state: MachineState) -> None:
        async with self._changed:
            self.state = state
            self._changed.notify_all()


def socket_path(folder: Path) -> Path:
    """The socket of the Machines API of the machine with this folder."""
    return folder / "api.sock"
