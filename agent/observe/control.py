"""The control socket: HTTP on a Unix socket in the run folder, for the commands of the CLI.

Root may do everything, the login account may read; who it is, the kernel says (SO_PEERCRED).
"""

import asyncio
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
from agent.network import Network
from agent.observe.reports import (
    BanOrder,
    BanReport,
    BansLifted,
    HealthReport,
    KeyReport,
    KeysReport,
    SessionReport,
)
from agent.platform.account import Account

SOCKET = "agent.sock"

_CREDENTIALS = struct.Struct("=3i")  # struct ucred: pid, uid, gid (unix(7))

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Control:
    """Answers on `run_dir`/agent.sock until cancelled."""

    run_dir: str
    account: Account
    sessions: Sessions
    keys: Keys
    gate: Gate
    health: Health

    async def serve(self) -> None:
        """Serve until cancelled. Raises `OSError` when the socket cannot be made."""
        app = web.Application(middlewares=[self._only_the_owner])
        app.router.add_get("/v1/health", self._get_health)
        app.router.add_get("/v1/keys", self._get_keys)
        app.router.add_get("/v1/sessions", self._get_sessions)
        app.router.add_get("/v1/bans", self._get_bans)
        app.router.add_post("/v1/bans", self._post_ban)
        app.router.add_delete("/v1/bans", self._delete_bans)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.SockSite(runner, self._bind()).start()
            await asyncio.get_running_loop().create_future()
        finally:
            await runner.cleanup()

    def _bind(self) -> socket.socket:
        path = f"{self.run_dir}/{SOCKET}"
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
        peer = request.get_extra_info("socket")
        raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        uid = _CREDENTIALS.unpack(raw)[1]
        reads = request.method == "GET" and uid == self.account.uid
        # The agent's own account is root, but for an ordinary user's agent.
        if uid not in (0, os.geteuid()) and not reads:
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
