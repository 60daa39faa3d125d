"""The stand-in for Fly's API on the loopback: Machines REST, GraphQL and api.fly.io's REST.

`python -m deploy.local.server FOLDER` serves until a signal, or until it has had no app for a
while. Its machines are the local machines of deploy/machine.py. It does not imitate builders,
prices, WireGuard, or a virtual machine for each machine.
"""

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from aiohttp import web

from deploy.api import ApiError, errors_as_json, refused
from deploy.local import (
    graph,
    rest_apps,
    rest_leases,
    rest_machines,
    rest_volumes,
    store,
    uiex,
)
from deploy.local.access import Access
from deploy.local.web import WORLD, answer, body, world
from deploy.local.world import World

UNUSED = 60.0
"""Seconds without an app and without a request after which the server exits."""

_OURS = "/stand-in"
"""Paths that the real platform lacks: tests change its conditions there."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Server:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.world = World(folder)
        self._token = secrets.token_urlsafe(24)
        self._asked_at = time.monotonic()
        self.requests = 0

    async def run(self) -> None:
        """Serve; `access.json` says where, and is removed at the end."""
        app = web.Application(middlewares=[self._watch, errors_as_json], client_max_size=16 << 20)
        app[WORLD] = self.world
        for part in (rest_apps, rest_machines, rest_leases, rest_volumes, graph, uiex):
            part.add_routes(app.router)
        app.router.add_get(f"{_OURS}/platform", _platform)
        app.router.add_patch(f"{_OURS}/conditions", _change)
        app.router.add_get(f"{_OURS}/apps/{{app}}/ports/{{port}}", _port)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, ended.set)
        self.world.refresh_edges()
        access = Access(f"http://127.0.0.1:{port}", self._token, os.getpid())
        access.write(self._folder)
        self._end_unused(ended)
        try:
            await ended.wait()
        finally:
            Access.remove(self._folder)
            await runner.cleanup()
            await self.world.close()
            self.world.keep()

    def _end_unused(self, ended: asyncio.Event) -> None:
        """Exit after a while without an app and without a request."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            if self.world.records.apps or time.monotonic() - self._asked_at < UNUSED:
                loop.call_later(1, look)
            else:
                ended.set()

        look()

    @web.middleware
    async def _watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the token, fail as a test asks for, and save changes."""
        self._asked_at = time.monotonic()
        self.requests += 1
        ours = request.path.startswith(_OURS)
        conditions = self.world.conditions
        if not ours:
            await asyncio.sleep(conditions.distance)
            status = conditions.fail.pop(0) if conditions.fail else store.AS_USUAL
            if status == 0 and request.transport is not None:
                request.transport.abort()
            if status != store.AS_USUAL:
                return web.Response(status=status or 500, text="<html>upstream trouble</html>")
            given = request.headers.get("Authorization", "").rpartition(" ")[2]
            if given != self._token or not conditions.account:
                return refused(ApiError(401, "You must be authenticated to view this."))
        answered = await handler(request)
        if request.method != "GET":
            self.world.keep()
        return answered


async def _platform(request: web.Request) -> web.Response:
    """All records, for tests."""
    place = world(request)
    place.keep()
    return answer(
        {
            "records": msgspec.Raw(msgspec.json.encode(place.records)),
            "builders_asked": place.builders_asked,
        }
    )


async def _change(request: web.Request) -> web.Response:
    place = world(request)
    now = msgspec.json.decode(msgspec.json.encode(place.conditions), type=dict[str, msgspec.Raw])
    changed = now | await body(request, dict[str, msgspec.Raw])
    place.records.conditions = msgspec.json.decode(
        msgspec.json.encode(changed), type=store.Conditions
    )
    return web.Response(status=204)


async def _port(request: web.Request) -> web.Response:
    """The port on this computer that stands for a port of an app's machine."""
    place, app = world(request), request.match_info["app"]
    for machine in place.machines(app):
        running = place.running.get(machine.id)
        if running is not None:
            return answer({"port": running.port(int(request.match_info["port"]))})
    raise ApiError(404, f"{app} has no machine that runs")


def main() -> None:
    """Serve a folder's platform."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    asyncio.run(_Server(folder).run())


if __name__ == "__main__":
    main()
