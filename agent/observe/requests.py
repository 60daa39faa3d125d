"""The requests and orders of the control socket; docs/control-socket.md describes them."""

import math
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from msgspec.structs import replace as replace_struct

from agent.access.homekeys import about
from agent.http.messages import Answer, Request
from agent.http.routes import Routes
from agent.machine import Machine
from agent.network import Network
from agent.notify.notifier import TooSoon
from agent.observe.answers import answer, refusal, stream
from agent.observe.check import check
from agent.observe.checkpoints import CheckpointRequests
from agent.observe.crew import agent_reports
from agent.observe.idle import idle_report, lease_report, lease_reports
from agent.observe.reports import (
    BanOrder,
    BanReport,
    BansLifted,
    EgressReport,
    HealthReport,
    KeyReport,
    KeysReport,
    Kicked,
    LeaseOrder,
    NotifyOutcome,
    NotifyReport,
    ReloadReport,
    SleepOrder,
)
from agent.observe.services import ServiceRequests
from agent.observe.status import ban_reports, session_report, status_report
from agent.observe.usage import usage_report
from agent.settings.load import SettingsError, load
from agent.untrusted import decode

LEASES, NOTIFY = "/v1/leases", "/v1/notify"
FOR_THE_ACCOUNT = (LEASES, NOTIFY)
"""The paths at which the login account may give orders."""

HISTORY_SHOWN = 1000

BANS_LISTED = 10_000


class Requests:
    """Answers requests; `peer_pid` is the asking process, `hung_up` whether it is gone."""

    def __init__(
        self,
        machine: Machine,
        peer_pid: Callable[[Request], int],
        hung_up: Callable[[Request], bool],
    ) -> None:
        self._machine = machine
        self._peer_pid = peer_pid
        self._hung_up = hung_up

    def add_to(self, routes: Routes) -> None:
        """Route every request."""
        routes.add("GET", "/v1/health", self._get_health)
        routes.add("GET", "/v1/status", self._get_status)
        routes.add("GET", "/v1/check", self._get_check)
        routes.add("GET", "/v1/keys", self._get_keys)
        routes.add("GET", "/v1/egress", self._get_egress)
        routes.add("GET", "/v1/sessions", self._get_sessions)
        routes.add("DELETE", "/v1/sessions", self._delete_session)
        routes.add("GET", "/v1/history", self._get_history)
        routes.add("GET", "/v1/usage", self._get_usage)
        routes.add("GET", "/v1/bans", self._get_bans)
        routes.add("POST", "/v1/bans", self._post_ban)
        routes.add("DELETE", "/v1/bans", self._delete_bans)
        routes.add("GET", "/v1/agents", self._get_agents)
        routes.add("GET", "/v1/agents/history", self._get_agents_history)
        routes.add("POST", NOTIFY, self._post_notify)
        routes.add("GET", "/v1/idle", self._get_idle)
        routes.add("POST", "/v1/sleep", self._post_sleep)
        routes.add("POST", "/v1/reload", self._post_reload)
        routes.add("GET", LEASES, self._get_leases)
        routes.add("POST", LEASES, self._post_lease)
        routes.add("DELETE", LEASES, self._delete_lease)
        ServiceRequests(self._machine.supervisor).add_to(routes)
        CheckpointRequests(self._machine.checkpoints).add_to(routes)

    async def _get_health(self, _: Request) -> Answer:
        problems = dict(self._machine.problems())
        report = HealthReport(healthy=not problems, problems=problems)
        return answer(report, status=200 if report.healthy else 503)

    async def _get_status(self, _: Request) -> Answer:
        return answer(status_report(self._machine))

    async def _get_check(self, _: Request) -> Answer:
        environ = self._machine.environ
        try:
            loaded = load(environ, privileged=os.geteuid() == 0)
        except SettingsError as error:
            return refusal(f"these settings would be refused: {error}")
        # If the agent chose the login account itself, the settings do not name it.
        known = replace(loaded.settings, user=self._machine.account.name)
        return answer(check(replace(loaded, settings=known), environ))

    async def _get_keys(self, _: Request) -> Answer:
        keyring = self._machine.keyring
        keys = [
            KeyReport(
                name=entry.name,
                type=entry.key.type,
                bits=entry.key.bits,
                fingerprint=entry.key.fingerprint,
                source=f"{entry.source} line {entry.line}",
                problem=keyring.lets_nobody_in(entry),
            )
            for entry in keyring.keys.usable
        ]
        report = KeysReport(
            keys=keys,
            refused=[str(bad) for bad in keyring.keys.bad],
            odd=[str(odd) for odd in keyring.keys.odd],
            in_home=about(keyring.in_home) if keyring.in_home else "",
        )
        return answer(report)

    async def _get_egress(self, _: Request) -> Answer:
        wall = self._machine.wall
        if wall is None:
            return answer(EgressReport("open", {}, [], {}))
        names = {name: sorted(map(str, wall.addresses.get(name, ()))) for name in wall.names}
        networks = [str(network) for network in wall.always.networks]
        return answer(EgressReport(wall.mode, names, networks, wall.refused))

    async def _get_sessions(self, _: Request) -> Answer:
        return answer([session_report(session) for session in self._machine.sessions])

    async def _delete_session(self, request: Request) -> Answer:
        name = request.query.get("id", "")
        session = self._machine.sessions.get(name)
        if session is None:
            return refusal(f"there is no session {name!r}", status=404)
        session.kick()
        return answer(Kicked(name))

    async def _get_history(self, request: Request) -> Answer:
        return await _history(request, self._machine.memory.audit.since)  # as HistoryReport

    async def _get_agents_history(self, request: Request) -> Answer:
        return await _history(request, self._machine.memory.crew.since)  # as CodingHistoryReport

    async def _get_usage(self, _: Request) -> Answer:
        return answer(await usage_report(self._machine))

    async def _get_bans(self, _: Request) -> Answer:
        return stream(ban_reports(self._machine, BANS_LISTED))

    async def _post_ban(self, request: Request) -> Answer:
        try:
            order = decode(request.body, BanOrder)
            network = Network.parse(order.network)
        except ValueError as error:
            return refusal(error)
        if self._machine.gate.jail.ignores(network):
            return refusal(
                f"{network} is never banned: it is this machine's own, or in SWARM_IGNOREIP",
                status=409,
            )
        ban = self._machine.gate.ban(network, order.seconds, "by hand")
        seconds = ban.until - ban.since
        return answer(
            BanReport(network=str(network), seconds=seconds, times=ban.times, reason=ban.reason)
        )

    async def _delete_bans(self, request: Request) -> Answer:
        text = request.query.get("network")
        try:
            network = None if text is None else Network.parse(text)
        except ValueError as error:
            return refusal(error)
        return answer(BansLifted(lifted=self._machine.gate.unban(network)))

    async def _get_agents(self, _: Request) -> Answer:
        return answer(agent_reports(self._machine.crew, ended=True))

    async def _post_notify(self, _: Request) -> Answer:
        try:
            outcomes = await self._machine.notifier.test()
        except TooSoon as error:
            return refusal(error, status=429)
        return answer(
            NotifyReport([NotifyOutcome(each.line, each.kind, each.problem) for each in outcomes])
        )

    async def _get_idle(self, _: Request) -> Answer:
        return answer(idle_report(self._machine.idle, self._machine.current.value))

    async def _post_sleep(self, request: Request) -> Answer:
        if self._machine.current.value.sleep_mode == "off":
            problem = "SWARM_SLEEP_MODE is off: nothing would wake this machine up again"
            return refusal(problem, status=409)
        try:
            order = decode(request.body, SleepOrder)
        except ValueError as error:
            return refusal(error)
        if self._hung_up(request):
            # The order waited in the socket while the agent hung, and its sender gave up.
            return refusal("the client is gone", status=408)
        self._machine.idle.watch.order_sleep(at_once=order.now)
        return answer(order)

    async def _post_reload(self, _: Request) -> Answer:
        try:
            load(self._machine.environ, privileged=os.geteuid() == 0)
        except SettingsError as error:
            return refusal(f"{error}; nothing was changed")
        # The client gets its answer before this process re-executes.
        report = answer(ReloadReport(self._machine.past.reloads + 1))
        return replace(report, sent=self._machine.stop.reload)

    async def _get_leases(self, _: Request) -> Answer:
        return answer(lease_reports(self._machine.idle.leases))

    async def _post_lease(self, request: Request) -> Answer:
        try:
            order = decode(request.body, LeaseOrder)
            longest = self._machine.current.value.lease_max
            capped = order.seconds is not None and order.seconds > longest
            seconds = min(order.seconds or math.inf, longest)
            holder = self._peer_pid(request) if order.while_running else None
            lease = await self._machine.idle.leases.take(order.name, seconds, holder)
        except ValueError as error:
            return refusal(error)
        return answer(replace_struct(lease_report(lease), capped=capped))

    async def _delete_lease(self, request: Request) -> Answer:
        name = request.query.get("name", "")
        if not await self._machine.idle.leases.release(name):
            return refusal(f"there is no lease {name!r}", status=404)
        return answer(lease_reports(self._machine.idle.leases))


async def _history(
    request: Request, entries: Callable[[float, int], Awaitable[Iterable[object]]]
) -> Answer:
    try:
        since = float(request.query.get("since", "0"))
    except ValueError:
        return refusal("since: expected a Unix time")
    return stream(await entries(since, HISTORY_SHOWN))
