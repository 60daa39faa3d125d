"""The control socket: HTTP on a Unix socket in the run folder, for the commands of the CLI.

Root may do everything, the login account may read; who it is, the kernel says (SO_PEERCRED).
"""

import asyncio
import math
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from aiohttp import web

from agent.access.gate import Gate, clock
from agent.access.keys import Keys
from agent.access.sessions import Session, Sessions
from agent.health import Health
from agent.idle.assemble import Idle
from agent.network import Network
from agent.observe.idle import idle_report, lease_report, lease_reports
from agent.observe.reports import (
    BanOrder,
    BanReport,
    BansLifted,
    HealthReport,
    KeyReport,
    KeysReport,
    LeaseOrder,
    SessionReport,
    SleepOrder,
)
from agent.platform.account import Account
from agent.settings.current import Current

SOCKET = "agent.sock"
LEASES = "/v1/leases"
"""The one thing that the login account may change."""

_CREDENTIALS = struct.Struct("=3i")  # struct ucred: pid, uid, gid (unix(7))

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Control:
    """Answers on agent.sock in the run folder until cancelled."""

    current: Current
    account: Account
    sessions: Sessions
    keys: Keys
    gate: Gate
    health: Health
    idle: Idle

    async def serve(self) -> None:
        """Serve until cancelled. Raises `OSError` when the socket cannot be made."""
        app = web.Application(middlewares=[self._only_the_owner])
        app.router.add_get("/v1/health", self._get_health)
        app.router.add_get("/v1/keys", self._get_keys)
        app.router.add_get("/v1/sessions", self._get_sessions)
        app.router.add_get("/v1/bans", self._get_bans)
        app.router.add_post("/v1/bans", self._post_ban)
        app.router.add_delete("/v1/bans", self._delete_bans)
        app.router.add_get("/v1/idle", self._get_idle)
        app.router.add_post("/v1/sleep", self._post_sleep)
        app.router.add_get(LEASES, self._get_leases)
        app.router.add_post(LEASES, self._post_lease)
        app.router.add_delete(LEASES, self._delete_lease)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.SockSite(runner, self._bind()).start()
            await asyncio.get_running_loop().create_future()
        finally:
            await runner.cleanup()

    def _bind(self) -> socket.socket:
        path = f"{self.current.value.run_dir}/{SOCKET}"
        if os.path.lexists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o117)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        os.chown(path, os.geteuid(), self.account.gid)
        return listener

    @web.middleware
    async def _only_the_owner(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        _, uid, _ = _credentials(request)
        may = request.method == "GET" or request.path == LEASES
        # The agent's own account is root, but for an ordinary user's agent.
        if uid not in (0, os.geteuid()) and not (may and uid == self.account.uid):
            return _json({"error": f"uid {uid} may not do this"}, status=403)
        return await handler(request)

    async def _get_health(self, _: web.Request) -> web.Response:
        problems = dict(self.health.problems)
        report = HealthReport(healthy=not problems, problems=problems)
        return _json(report, status=200 if report.healthy else 503)

    async def _get_keys(self, _: web.Request) -> web.Response:
        keys = [
            KeyReport(
                name=entry.name,
                type=entry.key.type,
                bits=entry.key.bits,
                fingerprint=entry.key.fingerprint,
                source=f"{entry.source} line {entry.line}",
            )
            for entry in self.keys.usable
        ]
        return _json(KeysReport(keys=keys, refused=[str(bad) for bad in self.keys.bad]))

    async def _get_sessions(self, _: web.Request) -> web.Response:
        return _json([_session_report(session) for session in self.sessions])

    async def _get_bans(self, _: web.Request) -> web.Response:
        now = clock()
        return _json(
            [
                BanReport(
                    network=str(ban.network),
                    seconds=ban.until - now,
                    times=ban.times,
                    reason=ban.reason,
                )
                for ban in self.gate.jail.active(now)
            ]
        )

    async def _post_ban(self, request: web.Request) -> web.Response:
        try:
            order = msgspec.json.decode(await request.read(), type=BanOrder)
            network = Network.parse(order.network)
        except ValueError as error:  # msgspec's errors are of this kind
            return _json({"error": str(error)}, status=400)
        ban = self.gate.ban(network, order.seconds, "by hand")
        seconds = ban.until - ban.since
        return _json(
            BanReport(network=str(network), seconds=seconds, times=ban.times, reason=ban.reason)
        )

    async def _delete_bans(self, request: web.Request) -> web.Response:
        text = request.query.get("network")
        try:
            network = None if text is None else Network.parse(text)
        except ValueError as error:
            return _json({"error": str(error)}, status=400)
        return _json(BansLifted(lifted=self.gate.unban(network)))

    async def _get_idle(self, _: web.Request) -> web.Response:
        return _json(idle_report(self.idle, self.current.value))

    async def _post_sleep(self, request: web.Request) -> web.Response:
        if self.current.value.sleep_mode == "off":
            problem = "SWARM_SLEEP_MODE is off: nothing would wake this machine up again"
            return _json({"error": problem}, status=409)
        try:
            order = msgspec.json.decode(await request.read(), type=SleepOrder)
        except ValueError as error:
            return _json({"error": str(error)}, status=400)
        self.idle.watch.order_sleep(at_once=order.now)
        return _json(order)

    async def _get_leases(self, _: web.Request) -> web.Response:
        return _json(lease_reports(self.idle.leases))

    async def _post_lease(self, request: web.Request) -> web.Response:
        try:
            order = msgspec.json.decode(await request.read(), type=LeaseOrder)
            seconds = min(order.seconds or math.inf, self.current.value.lease_max)
            holder = _credentials(request)[0] if order.while_running else None
            lease = await self.idle.leases.take(order.name, seconds, holder)
        except ValueError as error:
            return _json({"error": str(error)}, status=400)
        return _json(lease_report(lease))

    async def _delete_lease(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        if not await self.idle.leases.release(name):
            return _json({"error": f"there is no lease {name!r}"}, status=404)
        return _json(lease_reports(self.idle.leases))


def _credentials(request: web.Request) -> tuple[int, int, int]:
    """Process, user and group of who asks, as the kernel knows them (unix(7))."""
    peer = request.get_extra_info("socket")
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid


def _session_report(session: Session) -> SessionReport:
    traffic = session.traffic()
    return SessionReport(
        id=session.id,
        user=session.user,
        key=session.key,
        fingerprint=session.fingerprint,
        client=str(session.client),
        since=session.started_at,
        idle=traffic.idle,
        bytes_in=traffic.received,
        bytes_out=traffic.sent,
        terminals=sorted(session.terminals),
        pid=session.process.pid,
    )


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )
