"""All services: started in their order, stopped in reverse, changed while they run.

A failure here does not touch SSH, and a failing service does not touch other services.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from agent.events import ServiceCrashed, ServicesChanged, ServicesRefused
from agent.life.ending import Ending, Stop
from agent.platform.account import Account
from agent.services import graph
from agent.services.backoff import Backoff
from agent.services.definition import Service
from agent.services.load import Plan, Refused, load, paths
from agent.services.output import Ring
from agent.services.runner import Runner, ServiceRecord, ServiceState, Surroundings
from agent.settings.current import Current
from agent.settings.load import config_path

READY = (ServiceState.RUNNING, ServiceState.DONE)
SETTLED = (*READY, ServiceState.FAILED)
OVER = (ServiceState.DONE, ServiceState.FAILED)

MOST = 200
"""Services at one time."""


class UnknownService(KeyError):
    """No service has that name."""


@dataclass(slots=True)
class ServicesRecord:
    """The plan in force, and the state of each of its services.

    `wanted`: services with a task that was not asked to end. `to_begin`: services that are being
    stopped in order to restart.
    """

    plan: Plan = field(default_factory=Plan)
    services: dict[str, ServiceRecord] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)
    to_begin: set[str] = field(default_factory=set)


class Supervisor:
    """Runs the services of a plan. One for the whole run of the agent."""

    def __init__(
        self,
        record: ServicesRecord,
        around: Surroundings,
        current: Current,
        account: Account,
        stop: Stop,
    ) -> None:
        """Continue with each service of the record in its present state."""
        self.runners: dict[str, Runner] = {}
        self.refused: list[Refused] = []
        self._record = record
        self._around = around
        self._current = current
        self._account = account
        self._stop = stop
        self._bus = around.bus
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._deadline: float | None = None
        self._one_at_a_time = asyncio.Lock()
        # The event loop itself keeps no strong reference to a task.
        self._waiting_again: set[asyncio.Task[None]] = set()
        for name, each in record.services.items():
            self._continue(name, each)

    def _continue(self, name: str, record: ServiceRecord) -> None:
        ring, service = Ring(record.lines), self._record.plan.services[name]
        self.runners[name] = Runner(record, ring, service, self._around, self)
        wanted = name in self._record.wanted | self._record.to_begin
        if record.process is None and (wanted or record.state not in OVER):
            record.state = ServiceState.INACTIVE  # without a process it starts again
        if wanted or record.process is not None:
            self._begin_task(name)
        if not wanted and name in self._tasks:
            # Not before it has begun: a task that never ran cleans up nothing.
            asyncio.get_running_loop().call_soon(self._cancel, name)

    @property
    def files(self) -> list[str]:
        """The files that may define services."""
        return paths(config_path(self._around.environ), self._current.value.services_dir)

    async def follow(self) -> None:
        """Re-read the files and apply them; services that did not change keep running."""
        async with self._one_at_a_time:
            if self._deadline is not None:
                return  # the machine is stopping
            before = self._record.plan
            plan, self.refused = load(self.files, self._account, before)
            for refused in self.refused:
                self._bus.publish(ServicesRefused(file=refused.file, reason=refused.reason))
            await self._apply(plan)

    async def start(self, name: str) -> None:
        """Start a service by hand, and the services it requires. Raises `UnknownService`."""
        service = self._service(name)
        async with self._one_at_a_time:
            if self._deadline is None:
                for required in self._with_required(service):
                    self._begin(required)

    async def stop(self, name: str) -> None:
        """Stop a service by hand, after the services that require it. Raises `UnknownService`."""
        self._service(name)
        async with self._one_at_a_time:
            await self._end({name} | graph.dependents(self._record.plan.services, name))

    async def restart(self, name: str) -> None:
        """Restart a service and the services that require it. Raises `UnknownService`."""
        self._service(name)
        async with self._one_at_a_time:
            services = self._record.plan.services
            touched = {name} | graph.dependents(services, name)
            running = {each for each in touched if each in self._tasks} | {name}
            self._record.to_begin |= running
            await self._end(touched)
            if self._deadline is None:
                for each in running:
                    self._begin(services[each])

    async def stop_all(self, deadline: float) -> None:
        """Stop every service in reverse order, by `deadline` (event-loop time)."""
        self._deadline = deadline
        async with self._one_at_a_time:
            await self._end(set(self._tasks))

    async def siblings_ready(self, service: Service) -> None:
        """Wait until services that it requires are ready, and those it comes after are settled."""
        while True:
            changed = self._changed
            states = {name: self._state(name) for name in service.follows}
            pending = [
                name
                for name, state in states.items()
                if not (state in READY if name in service.requires else self._settled(name, state))
            ]
            if not pending:
                return
            record = self.runners[service.name].record
            record.detail = f"waits for {', '.join(sorted(pending))}"
            await changed.wait()

    def moved(self, name: str, state: ServiceState) -> None:
        """Note that a service has changed its state: other services may wait for that."""
        self._wake_waiting()
        if state is ServiceState.FAILED:
            # Services that require it cannot run without it.
            for other in graph.dependents(self._record.plan.services, name):
                if other in self._tasks and self._state(other) is not ServiceState.WAITING:
                    self._wait_again(other)

    def ended_for_good(self, service: Service, status: int) -> None:
        """End the container with the status of this service, which failed for good."""
        ending = Ending.stopping(f"service {service.name} failed")
        self._stop.because(replace(ending, status=status or 1))

    def stop_patience(self, service: Service) -> float:
        """Its own stop timeout, limited to the time that is left before the deadline."""
        if self._deadline is None:
            return service.stop_timeout
        left = self._deadline - asyncio.get_running_loop().time()
        return max(0.0, min(service.stop_timeout, left))

    async def _apply(self, plan: Plan) -> None:
        old, new = self._record.plan.services, plan.services
        if len(new) > MOST:
            reason = f"{len(new)} services; the maximum is {MOST}"
            self._bus.publish(ServicesRefused(file="all files", reason=reason))
            return
        removed, added = set(old) - set(new), set(new) - set(old)
        changed = {name for name in set(old) & set(new) if old[name] != new[name]}
        running = {name for name in changed if name in self._tasks}
        self._record.to_begin |= running
        await self._end(removed | changed)
        self._record.plan = plan
        for name in removed:
            del self.runners[name], self._record.services[name]
        for name in changed | added:
            self._renew(new[name])
        for name in running | {name for name in added if new[name].autostart}:
            for service in self._with_required(new[name]):
                self._begin(service)
        if removed or changed or added:
            self._bus.publish(
                ServicesChanged(
                    added=tuple(sorted(added)),
                    removed=tuple(sorted(removed)),
                    changed=tuple(sorted(changed)),
                )
            )

    def _renew(self, service: Service) -> None:
        """Give the service a new runner, which keeps its lines and its count of starts."""
        before = self.runners.get(service.name)
        record = ServiceRecord(backoff=Backoff(service))
        if before is None:
            ring = Ring(record.lines)
        else:
            ring = before.ring
            record.lines, record.starts = ring.lines, before.record.starts
        self._record.services[service.name] = record
        self.runners[service.name] = Runner(record, ring, service, self._around, self)

    def _begin(self, service: Service) -> None:
        if service.name in self._tasks:
            return
        if self._state(service.name) is not ServiceState.INACTIVE:
            self._renew(service)  # a new start by hand forgets earlier failures
        self._begin_task(service.name)

    def _begin_task(self, name: str) -> None:
        self._record.to_begin.discard(name)
        self._record.wanted.add(name)
        task = asyncio.create_task(self.runners[name].run(), name=f"service {name}")
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._task_done(name, done))

    def _cancel(self, name: str) -> None:
        self._record.wanted.discard(name)
        task = self._tasks.get(name)
        if task is not None and not task.cancelling():  # a second time would interrupt its stop
            task.cancel()

    def _task_done(self, name: str, task: "asyncio.Task[None]") -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]
            self._record.wanted.discard(name)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._bus.publish(ServiceCrashed(service=name, problem=repr(error)))
        self._wake_waiting()

    def _wake_waiting(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _end(self, names: Iterable[str]) -> None:
        """Stop these services, each after its followers, otherwise in parallel."""
        ending = {name: self._tasks[name] for name in names if name in self._tasks}
        services = self._record.plan.services

        async def end(name: str) -> None:
            behind = [ends[other] for other in graph.followers(services, name) if other in ends]
            await asyncio.gather(*behind)
            self._cancel(name)
            await asyncio.gather(ending[name], return_exceptions=True)

        # Followers first, so that each can wait for its followers.
        ends: dict[str, asyncio.Task[None]] = {}
        for name in graph.stop_order(services, ending):
            ends[name] = asyncio.create_task(end(name))
        # The caller may be cancelled; the stops must not be.
        await asyncio.shield(asyncio.gather(*ends.values()))

    def _wait_again(self, name: str) -> None:
        async def again() -> None:
            async with self._one_at_a_time:
                self._record.to_begin.add(name)
                await self._end([name])
                if self._deadline is None and name in self.runners:
                    self._begin(self._record.plan.services[name])

        task = asyncio.create_task(again(), name=f"service {name} waits again")
        self._waiting_again.add(task)
        task.add_done_callback(self._waiting_again.discard)

    def _with_required(self, service: Service) -> list[Service]:
        services = self._record.plan.services
        found: dict[str, Service] = {}
        waiting = [service]
        while waiting:
            each = waiting.pop()
            if each.name not in found:
                found[each.name] = each
                waiting += [services[name] for name in each.requires]
        return list(found.values())

    def _service(self, name: str) -> Service:
        try:
            return self._record.plan.services[name]
        except KeyError:
            raise UnknownService(name) from None

    def _settled(self, name: str, state: ServiceState) -> bool:
        # An inactive service without a task is not about to start.
        return state in SETTLED or (state is ServiceState.INACTIVE and name not in self._tasks)

    def _state(self, name: str) -> ServiceState:
        return self.runners[name].record.state
