"""The Machines API on a Unix socket, as far as a machine asks it about itself."""

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path

from aiohttp import web

from deploy.standin import KILL_TIMEOUT, StandIn, State

ANSWER_FIRST = 0.2
"""Seconds between the answer to a suspend and the freeze."""


class MachinesApi:
    """Serves one machine's own API; any host name will do, and no token is asked for."""

    def __init__(self, standin: StandIn) -> None:
        self.standin = standin
        self._later: set[asyncio.Task[None]] = set()

    async def serve(self, path: Path) -> None:
        """Serve until cancelled."""
        identity = self.standin.identity
        base = f"/v1/apps/{identity.app}/machines/{identity.machine}"
        app = web.Application()
        app.router.add_get(base, self.describe)
        app.router.add_get(f"{base}/wait", self.wait)
        app.router.add_post(f"{base}/suspend", self.suspend)
        app.router.add_post(f"{base}/stop", self.stop)
        app.router.add_post(f"{base}/start", self.start)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        try:
            path.unlink(missing_ok=True)
            await web.UnixSite(runner, str(path)).start()
            path.chmod(0o600)
            await asyncio.get_running_loop().create_future()
        finally:
            await runner.cleanup()

    async def describe(self, _: web.Request) -> web.Response:
        """The machine and its state."""
        identity = self.standin.identity
        return web.json_response(
            {
                "id": identity.machine,
                "state": self.standin.state.value,
                "region": "lap",
                "config": {
                    "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": identity.memory_mb}
                },
            }
        )

    async def wait(self, request: web.Request) -> web.Response:
        """Answer when the machine is in the state that `state=` names."""
        try:
            state = State(request.query.get("state", "started"))
        except ValueError:
            return web.json_response({"error": "unknown state"}, status=400)
        await self.standin.wait_for(state)
        return web.json_response({"ok": True})

    async def suspend(self, _: web.Request) -> web.Response:
        """Answer, and freeze the machine a moment later."""
        self._do_later(self.standin.suspend())
        return web.json_response({"ok": True})

    async def stop(self, request: web.Request) -> web.Response:
        """Answer, and end the machine; the body may name the signal and the timeout (seconds)."""
        order = await request.json() if request.can_read_body else {}
        number = signal.Signals[order.get("signal", "SIGINT")]
        self._do_later(
            self.standin.stop(number, kill_after=float(order.get("timeout", KILL_TIMEOUT)))
        )
        return web.json_response({"ok": True})

    async def start(self, _: web.Request) -> web.Response:
        """A machine that asks is started already."""
        return web.json_response({"previous_state": self.standin.state.value})

    def _do_later(self, work: Coroutine[None, None, None]) -> None:
        async def later() -> None:
            await asyncio.sleep(ANSWER_FIRST)
            await work

        task = asyncio.create_task(later())
        self._later.add(task)
        task.add_done_callback(self._later.discard)
