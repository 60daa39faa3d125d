"""The reports of services, and the control socket's orders for them."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress

from agent.http.messages import Answer, Request
from agent.http.routes import Routes
from agent.observe.answers import answer, refusal, stream
from agent.observe.reports import LineReport, ServiceReport, ServicesReport
from agent.services.runner import Runner
from agent.services.supervisor import Supervisor, UnknownService

PATH = "/v1/services"
LONGEST_WAIT = 8.0
"""Seconds that a request may wait for a new line."""


class ServiceRequests:
    """Answers requests about services."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._running: set[asyncio.Task[None]] = set()
        self._orders: Mapping[str, Callable[[str], Coroutine[None, None, None]]] = {
            "start": supervisor.start,
            "stop": supervisor.stop,
            "restart": supervisor.restart,
        }

    def add_to(self, routes: Routes) -> None:
        """Route every request."""
        routes.add("GET", PATH, self._list)
        routes.add("GET", PATH + "/{name}/logs", self._logs)
        routes.add("POST", PATH + "/{name}/{order}", self._order)

    async def _list(self, _: Request) -> Answer:
        refused = [str(each) for each in self._supervisor.refused]
        return answer(ServicesReport(service_reports(self._supervisor), refused))

    async def _order(self, request: Request) -> Answer:
        name = request.variables["name"]
        order = self._orders.get(request.variables["order"])
        if order is None:
            return refusal(f"expected one of {', '.join(self._orders)}", status=404)
        task = asyncio.create_task(order(name), name=f"{request.variables['order']} {name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            # The client may disconnect; an order that has begun is carried out.
            await asyncio.shield(task)
        except UnknownService:
            return _no_service(name)
        return answer(service_report(self._supervisor.runners[name]))

    async def _logs(self, request: Request) -> Answer:
        name = request.variables["name"]
        try:
            after = int(request.query.get("after", "0"))
            wait = min(LONGEST_WAIT, float(request.query.get("wait", "0")))
        except ValueError:
            return refusal("after and wait: expected numbers")
        runner = self._supervisor.runners.get(name)
        if runner is None:
            return _no_service(name)
        changed = runner.ring.changed
        lines = runner.ring.after(after)
        if not lines and wait > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await changed.wait()
            lines = runner.ring.after(after)
        return stream(LineReport(each.number, each.at, each.stream, each.text) for each in lines)


def service_reports(supervisor: Supervisor) -> list[ServiceReport]:
    """All services, by name."""
    return [service_report(runner) for _, runner in sorted(supervisor.runners.items())]


def service_report(runner: Runner) -> ServiceReport:
    """One service."""
    return ServiceReport(
        name=runner.service.name,
        state=runner.record.state.value,
        detail=runner.record.detail,
        since=runner.record.since,
        started=runner.record.started_at,
        pid=runner.pid,
        restarts=runner.restarts,
        command=list(runner.service.command),
        user=str(runner.service.user),
    )


def _no_service(name: str) -> Answer:
    return refusal(f"there is no service {name!r}: swarm-agent services lists them", status=404)
