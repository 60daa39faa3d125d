"""The Machines API of one machine: state, start, stop, suspend, wait.

This code serves `/.fly/api` in the machine and the stand-in's REST API (deploy/local).
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

import msgspec
from aiohttp import web

from deploy.sizes import SUSPEND_LIMIT
from deploy.standin import ASLEEP, KILL_TIMEOUT, MachineState, StandIn

ANSWER_FIRST = 0.2
"""Seconds from the answer to a suspend or stop until it begins."""

LONGEST_WAIT = 60.0
"""Seconds after which the platform's own proxy cuts off a wait."""


_STATES = {state.value: state for state in MachineState}


class ApiError(Exception):
    """A refusal of the API: status, message, and a code for programs."""

    def __init__(self, status: int, words: str, code: str = "") -> None:
        super().__init__(words)
        self.status, self.words, self.code = status, words, code


def refused(error: ApiError) -> web.Response:
    """A refusal as an HTTP answer."""
    body = {"error": error.words} | ({"status": error.code} if error.code else {})
    return web.json_response(body, status=error.status)


class StopOrder(msgspec.Struct, frozen=True):
    """The body of a stop, all of it optional; the timeout in seconds or as Go writes durations."""

    signal: str = "SIGINT"
    timeout: float | str = KILL_TIMEOUT


class MachinesApi:
    """Serves one machine's own API; the host name is ignored, and no token is needed."""

    def __init__(self, standin: StandIn) -> None:
        self.standin = standin
        self._later: set[asyncio.Task[None]] = set()

    async def serve(self, path: Path) -> None:
        """Serve on a Unix socket until cancelled."""
        identity = self.standin.identity
        base = f"/v1/apps/{identity.app}/machines/{identity.machine}"
        app = web.Application(middlewares=[errors_as_json])
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
        guest = {
            "cpu_kind": identity.cpu_kind,
            "cpus": identity.cpus,
            "memory_mb": identity.memory_mb,
        }
        return web.json_response(
            {
                "id": identity.machine,
                "state": self.standin.state.value,
                "region": identity.region,
                "config": {"guest": guest},
            }
        )

    async def wait(self, request: web.Request) -> web.Response:
        """Answer when the machine is in one of the states that `state=` names.

        `settled` is any state that lasts.
        """
        wanted: set[MachineState] = set()
        for name in request.query.getall("state", ["started"]):
            if name == "settled":
                wanted |= {MachineState.STARTED, *ASLEEP}
            elif name in _STATES:
                wanted.add(_STATES[name])
            else:
                raise ApiError(400, f"invalid state {name}")
        limit = min(float(request.query.get("timeout", LONGEST_WAIT)), LONGEST_WAIT)
        try:
            async with asyncio.timeout(limit):
                await self.standin.wait_for(*wanted)
        except TimeoutError:
            raise ApiError(408, "deadline_exceeded: machine did not reach the state") from None
        return web.json_response({"ok": True})

    async def suspend(self, _: web.Request) -> web.Response:
        """Answer, then freeze the machine."""
        if self.standin.identity.memory_mb > SUSPEND_LIMIT:
            raise ApiError(400, f"machines with more than {SUSPEND_LIMIT} MB cannot be suspended")
        if self.standin.state is not MachineState.STARTED:
            raise _not_now("suspend", self.standin.state)
        self.do_later(self.standin.suspend())
        return web.json_response({"ok": True})

    async def stop(self, request: web.Request) -> web.Response:
        """Answer, then stop the machine; the body may name the signal and the timeout."""
        body = await request.read()
        try:
            order = msgspec.json.decode(body, type=StopOrder) if body else StopOrder()
            number = signal.Signals[order.signal or "SIGINT"]
        except (msgspec.DecodeError, KeyError) as error:
            raise ApiError(400, f"invalid stop request: {error}") from None
        self.do_later(self.standin.stop(number, kill_after=_seconds(order.timeout)))
        return web.json_response({"ok": True})

    async def start(self, _: web.Request) -> web.Response:
        """Start or resume the machine; the answer does not wait for it."""
        before = self.standin.state
        if before in (MachineState.STOPPING, MachineState.SUSPENDING, MachineState.REPLACING):
            raise _not_now("start", before)
        self.do_later(self.standin.wake("the API was asked to"), after=0.0)
        return web.json_response({"previous_state": before.value})

    def do_later(self, work: Coroutine[None, None, None], after: float = ANSWER_FIRST) -> None:
        """Run something shortly, after the request was answered."""

        async def later() -> None:
            await asyncio.sleep(after)
            await work

        task = asyncio.create_task(later())
        self._later.add(task)
        task.add_done_callback(self._later.discard)


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer a refusal as the API does."""
    try:
        return await handler(request)
    except ApiError as error:
        return refused(error)


def _not_now(order: str, state: MachineState) -> ApiError:
    words = f"failed_precondition: unable to {order} machine from current state: '{state.value}'"
    return ApiError(412, words)


def _seconds(text: float | str) -> float:
    """Seconds of `30`, `30s` or `1m30s` (Go's time.Duration, as far as flyctl sends it)."""
    if not isinstance(text, str):
        return float(text)
    total, number = 0.0, ""
    for letter in text:
        if letter in "0123456789.":
            number += letter
        elif letter in "hms" and number:
            total, number = total + float(number) * {"h": 3600, "m": 60, "s": 1}[letter], ""
        else:
            raise ApiError(400, f"invalid duration {text}")
    return total + float(number or 0) or KILL_TIMEOUT
