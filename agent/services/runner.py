"""One service: waits for the services it follows, starts, becomes ready, is checked, restarts.

    inactive → waiting → starting → running → stopping → inactive
                  ↑          │         │
                  │          ▼         ▼
                  ╰──────── backoff ───┴→ failed, done

The task of a runner is the service: cancelling it stops the process, whatever the state.
"""

import asyncio
import os
import pwd
import signal
import socket
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Protocol

from agent.bus import Bus
from agent.events import (
    ServiceBackoff,
    ServiceFailed,
    ServiceOutputLost,
    ServiceReady,
    ServiceSaid,
    ServiceStarted,
    ServiceStopped,
)
from agent.init.children import Child, Children
from agent.services import process
from agent.services.backoff import Again, Backoff, GiveUp, Over
from agent.services.definition import OnFailure, Service
from agent.services.output import Lines, Output, Ring
from agent.services.probes import Notify, listen, look
from agent.services.process import Started

FIRST_LOOK, SLOWEST_LOOK = 0.02, 1.0
"""Seconds between two checks whether a service is ready: doubled each time."""

SLOWEST_LOOK_AT_REST = 0.2
"""Seconds between two checks whether the processes that a program left behind have ended."""

LOOK_PATIENCE = 5.0
KILL_PATIENCE, KILL_ROUNDS = 5.0, 10
"""Seconds that SIGKILL may take (a process can hang in the kernel), and how often it is sent."""

LAST_LINES = 3


class ServiceState(Enum):
    """The state of a service."""

    INACTIVE = "inactive"
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"
    DONE = "done"


MOVES: Mapping[ServiceState, frozenset[ServiceState]] = {
    ServiceState.INACTIVE: frozenset({ServiceState.WAITING}),
    ServiceState.WAITING: frozenset({ServiceState.STARTING, ServiceState.INACTIVE}),
    ServiceState.STARTING: frozenset(
        {
            ServiceState.RUNNING,
            ServiceState.BACKOFF,
            ServiceState.FAILED,
            ServiceState.DONE,
            ServiceState.STOPPING,
            ServiceState.INACTIVE,
        }
    ),
    ServiceState.RUNNING: frozenset(
        {
            ServiceState.BACKOFF,
            ServiceState.FAILED,
            ServiceState.DONE,
            ServiceState.STOPPING,
            ServiceState.INACTIVE,
        }
    ),
    ServiceState.STOPPING: frozenset(
        {ServiceState.INACTIVE, ServiceState.BACKOFF, ServiceState.FAILED}
    ),
    ServiceState.BACKOFF: frozenset({ServiceState.WAITING, ServiceState.INACTIVE}),
    ServiceState.FAILED: frozenset(),
    ServiceState.DONE: frozenset(),
}
"""From each state, the states that can follow; a new start by hand is a new runner."""


class Siblings(Protocol):
    """A runner's view of the other services."""

    async def siblings_ready(self, service: Service) -> None:
        """Wait until services that it requires are ready, and others that it follows settled."""

    def moved(self, name: str, state: ServiceState) -> None:
        """Note that a service has changed its state."""

    def ended_for_good(self, service: Service, status: int) -> None:
        """Note that a service has failed whose failure ends the container."""

    def stop_patience(self, service: Service) -> float:
        """Seconds that a stop may take now."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The dependencies of every runner.

    `environ` is the agent's own environment, with all secrets; `session_env` the part of it for
    services of the account `login`.
    """

    children: Children
    environ: Mapping[str, str]
    session_env: Mapping[str, str]
    login: str
    run_dir: str
    bus: Bus


@dataclass(slots=True, kw_only=True)
class ServiceRecord:
    """The state of a service, and its process while it has one."""

    backoff: Backoff
    lines: Lines = field(default_factory=Lines)
    state: ServiceState = ServiceState.INACTIVE
    detail: str = ""
    since: float = field(default_factory=time.time)
    started_at: float | None = None
    starts: int = 0
    process: Started | None = None
    notify: socket.socket | None = None
    """The socket on which its process reports itself ready, if it does."""
    ready_since: float | None = None
    """When its process became ready, on the monotonic clock; None: it is not."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How one run ended: `ran` is how long it was ready, in seconds."""

    failed: bool
    because: str
    ran: float
    status: int


class Runner:
    """Runs one service while `run` runs. `ring` has the lines of the record."""

    def __init__(
        self,
        record: ServiceRecord,
        ring: Ring,
        service: Service,
        around: Surroundings,
        siblings: "Siblings",
    ) -> None:
        self.record = record
        self.ring = ring
        self.service = service
        self._around = around
        self._siblings = siblings
        self._notify: Notify | None = None

    @property
    def pid(self) -> int | None:
        """The id of its process, while it has one."""
        return None if self.record.process is None else self.record.process.child.pid

    @property
    def restarts(self) -> int:
        """Starts after the first."""
        return max(0, self.record.starts - 1)

    async def run(self) -> None:
        """Run the service until it is over; cancelling stops it."""
        try:
            while True:
                try:
                    if self.record.process is None:
                        self._move(ServiceState.WAITING)
                        await self._siblings.siblings_ready(self.service)
                        outcome = await self._run_once()
                    else:
                        outcome = await self._follow_process(self.record.process)
                finally:
                    self._stop_listening()
                if not await self._prepare_restart(outcome):
                    return
        finally:
            if self.record.state not in (ServiceState.FAILED, ServiceState.DONE):
                self._move(ServiceState.INACTIVE)
                self._around.bus.publish(ServiceStopped(service=self.service.name))

    async def _prepare_restart(self, outcome: _Outcome) -> bool:
        """Wait for the restart. False if the service is over, as done or failed."""
        match self.record.backoff.ended(failed=outcome.failed, ran=outcome.ran):
            case Again(delay=delay, number=number):
                self._move(ServiceState.BACKOFF, outcome.because)
                self._around.bus.publish(
                    ServiceBackoff(
                        service=self.service.name,
                        because=outcome.because,
                        retry_in=delay,
                        restarts=number,
                    )
                )
                await asyncio.sleep(delay)
                return True
            case GiveUp(restarts=restarts):
                self._fail(outcome, f"{outcome.because}, after {restarts} restarts in a row")
            case Over(failed=True):
                self._fail(outcome, outcome.because)
            case Over():
                self._move(ServiceState.DONE, outcome.because)
        return False

    def _fail(self, outcome: _Outcome, because: str) -> None:
        self._move(ServiceState.FAILED, because)
        self._around.bus.publish(
            ServiceFailed(
                service=self.service.name, because=because, said=self.ring.last(LAST_LINES)
            )
        )
        if self.service.on_failure is OnFailure.SHUTDOWN:
            self._siblings.ended_for_good(self.service, outcome.status)

    async def _run_once(self) -> _Outcome:
        record = self.record
        self._move(ServiceState.STARTING)
        record.ready_since = None
        record.notify = self._listen()
        try:
            began = process.start(self.service, self._around.children, self._environment())
        except OSError as error:
            reason = f"cannot start {self.service.command[0]}: {error.strerror}"
            return _Outcome(True, reason, 0.0, 127)
        record.process = began
        record.starts += 1
        record.started_at = time.time()
        self._around.bus.publish(
            ServiceStarted(service=self.service.name, pid=began.child.pid, restarts=self.restarts)
        )
        return await self._follow_process(began)

    async def _follow_process(self, began: Started) -> _Outcome:
        """Follow the process until no process of the service is left."""
        record = self.record
        if record.notify is not None:
            self._notify = Notify(self._notify_path, record.notify)
        outputs = [
            Output(pipe, partial(self._said, stream), self._lost)
            for stream, pipe in began.streams.items()
            if pipe.descriptor >= 0
        ]
        try:
            if record.state is ServiceState.STOPPING:
                await self._stop(began)
                return _Outcome(True, "was stopping when the agent re-executed", 0.0, 1)
            return await self._until_end(began)
        finally:
            if began.child.running:
                self._move(ServiceState.STOPPING)
            try:
                # Also if the program ended by itself: processes that it left are stopped too.
                await _despite_cancellation(self._stop(began))
            finally:
                for output in outputs:
                    output.close()
                process.forget(began)
                record.process = None

    async def _until_end(self, began: Started) -> _Outcome:
        child = began.child
        ready = self.record.ready_since
        if ready is None:
            since = time.monotonic()
            problem = await self._until_ready(child)
            if problem is not None:
                await self._stop_failed(began)
                return _Outcome(True, problem, 0.0, _status(child))
            if not child.running:
                return self._ended(child, 0.0)
            self._move(ServiceState.RUNNING)
            ready = self.record.ready_since = time.monotonic()
            self._around.bus.publish(ServiceReady(service=self.service.name, seconds=ready - since))
        problem = await self._until_unhealthy(child)
        if problem is not None:
            await self._stop_failed(began)
            return _Outcome(True, problem, time.monotonic() - ready, _status(child))
        return self._ended(child, time.monotonic() - ready)

    def _ended(self, child: Child, ran: float) -> _Outcome:
        status = child.exited.result()
        return _Outcome(status.code != 0, f"ended with {status}", ran, status.code)

    async def _until_ready(self, child: Child) -> str | None:
        """Wait for readiness or the end. Returns a problem if neither comes in time."""
        if self.service.oneshot or self.service.ready is None:
            if self.service.oneshot:
                await asyncio.shield(child.exited)
            return None
        ready = asyncio.create_task(self._ready())
        try:
            waiting: list[asyncio.Future[Any]] = [ready, child.exited]
            await asyncio.wait(
                waiting,
                timeout=self.service.ready_timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if ready.done() and (error := ready.exception()) is not None:
                return f"{type(error).__name__}: {error}"
            if ready.done() or not child.running:
                return None
            return f"not ready within {self.service.ready_timeout:g} s: {self.record.detail}"
        finally:
            ready.cancel()
            await asyncio.gather(ready, return_exceptions=True)

    async def _ready(self) -> None:
        check = self.service.ready
        if self._notify is not None:
            self.record.detail = "it has not sent READY=1"
            await self._notify.ready.wait()
        elif check is not None:
            pause = FIRST_LOOK
            while problem := await look(check, self.service, self._around.children, LOOK_PATIENCE):
                self.record.detail = problem
                await asyncio.sleep(pause)
                pause = min(SLOWEST_LOOK, pause * 2)
        self.record.detail = ""

    async def _until_unhealthy(self, child: Child) -> str | None:
        """Wait until the process ends, or health checks fail; then returns the problem."""
        health = self.service.health
        if health is None:
            await asyncio.shield(child.exited)
            return None
        failures = 0
        while True:
            await asyncio.wait([child.exited], timeout=health.interval)
            if not child.running:
                return None
            problem = await look(health, self.service, self._around.children, health.timeout)
            failures = failures + 1 if problem else 0
            self.record.detail = problem or ""
            if failures >= health.failures:
                return f"unhealthy {failures} times in a row: {problem}"

    async def _stop_failed(self, began: Started) -> None:
        if began.child.running:
            self._move(ServiceState.STOPPING, self.record.detail)
            await self._stop(began)

    async def _stop(self, began: Started) -> None:
        """Send the stop signal to all processes of the service; kill those left after its time."""
        if process.has_ended(began):
            return
        process.signal_all(began, self.service.stop_signal)
        if await _ended_within(began, self._siblings.stop_patience(self.service)):
            return
        for _ in range(KILL_ROUNDS):  # processes that fork all the time are not caught at once
            process.signal_all(began, signal.SIGKILL)
            if await _ended_within(began, KILL_PATIENCE / KILL_ROUNDS):
                return

    def _environment(self) -> dict[str, str]:
        service, around = self.service, self._around
        given = dict(around.session_env) if service.user == around.login else {}
        given |= {name: around.environ[name] for name in service.secrets if name in around.environ}
        given |= service.env
        listens = self.record.notify is not None
        return given | {"NOTIFY_SOCKET": self._notify_path} if listens else given

    def _listen(self) -> socket.socket | None:
        if self.service.ready is None or not self.service.ready.notify:
            return None
        os.makedirs(os.path.dirname(self._notify_path), mode=0o755, exist_ok=True)
        return listen(self._notify_path, pwd.getpwnam(self.service.user).pw_uid)

    @property
    def _notify_path(self) -> str:
        return f"{self._around.run_dir}/notify/{self.service.name}"

    def _stop_listening(self) -> None:
        if self._notify is not None:
            self._notify.close()
        elif self.record.notify is not None:
            self.record.notify.close()
        self._notify = self.record.notify = None

    def _said(self, stream: str, text: str) -> None:
        now = time.time()
        self.ring.add(now, stream, text)
        self._around.bus.publish(
            ServiceSaid(at=now, service=self.service.name, stream=stream, line=text)
        )

    def _lost(self, count: int) -> None:
        self._around.bus.publish(ServiceOutputLost(service=self.service.name, bytes=count))

    def _move(self, state: ServiceState, detail: str = "") -> None:
        record = self.record
        if state is record.state:
            return
        if state not in MOVES[record.state]:
            raise AssertionError(f"{self.service.name}: {record.state.value} → {state.value}")
        record.state, record.detail, record.since = state, detail, time.time()
        self._siblings.moved(self.service.name, state)


async def _despite_cancellation(work: Coroutine[Any, Any, None]) -> None:
    """Finish the work even if this task is cancelled meanwhile; then raise the cancellation."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def _ended_within(began: Started, patience: float) -> bool:
    """Wait until no process of the service is left; False after `patience` seconds."""
    # asyncio.timeout does not work in a task that is being cancelled (before Python 3.11.4).
    loop = asyncio.get_running_loop()
    end, pause = loop.time() + patience, FIRST_LOOK
    while not process.has_ended(began):
        left = end - loop.time()
        if left <= 0:
            return False
        if began.child.running:
            await asyncio.wait([began.child.exited], timeout=left)
        else:  # the processes that it left are not our children
            await asyncio.sleep(min(left, pause))
            pause = min(SLOWEST_LOOK_AT_REST, pause * 2)
    return True


def _status(child: Child) -> int:
    return child.exited.result().code if child.exited.done() else 1
