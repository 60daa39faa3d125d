"""HTTP for everybody: metrics, health and the status page. Read-only.

It shares the event loop with SSH, so it is kept cheap: frequent answers are built at most once
a second, and connections are few; a new one replaces the oldest. Only the machine itself and the
private network see addresses, users and keys.
"""

import base64
import hashlib
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client.exposition import choose_encoder

from agent.access.listener import listen
from agent.bus import Bus
from agent.http.messages import Answer, Request
from agent.http.routes import Routes
from agent.http.server import Manners, Server, anybody
from agent.machine import Machine
from agent.network import Network, any_covers, is_own
from agent.observe.answers import answer, encode, refusal
from agent.observe.metrics import Metrics
from agent.observe.reports import HealthReport
from agent.observe.status import HIDDEN, chart, public, status_report
from agent.settings.units import Endpoint

FRESH = 1.0
"""The greatest age of an answer, in seconds."""

KEEPALIVE = 75.0
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"

_FORWARDED = ("x-forwarded-for", "fly-client-ip", "forwarded", "via")
_OWN_HOSTS = re.compile(r"(localhost|[\d.]+|\[[0-9a-fA-F:.]+\]|[\w.-]+\.(internal|flycast))(:\d+)?")


@dataclass(frozen=True, slots=True)
class _Answer:
    body: bytes
    made: float


class _Cached:
    """Builds a new answer if the last one is older than `FRESH`."""

    def __init__(self) -> None:
        self._answers: dict[object, _Answer] = {}

    async def get(self, key: object, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """The answer for a key; there are few keys."""
        kept = self._answers.get(key)
        if kept is None or time.monotonic() - kept.made > FRESH:
            kept = self._answers[key] = _Answer(await make(), time.monotonic())
        return kept.body


class Http:
    """Serves at `endpoint` until cancelled."""

    def __init__(self, endpoint: Endpoint, machine: Machine, metrics: Metrics, bus: Bus) -> None:
        self._endpoint = endpoint
        self._machine = machine
        self._metrics = metrics
        self._bus = bus
        self._cached = _Cached()
        page = Path(__file__).with_name("page.html").read_bytes()
        self._page = page
        self._headers = {
            "Content-Security-Policy": _content_policy(page),
            "Server": "swarm-agent",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }

    async def serve(self) -> None:
        """Serve until cancelled. Raises `ListenError`, and any unexpected error."""
        routes = Routes(refusal)
        routes.add("GET", "/metrics", self._get_metrics)
        routes.add("GET", "/healthz", self._get_health)
        routes.add("GET", "/status.json", self._get_status)
        routes.add("GET", "/", self._get_page)

        async def hardened(request: Request) -> Answer:
            return replace(await routes.answer(request), headers=self._headers)

        listening = listen(self._endpoint, "SWARM_HTTP_LISTEN")
        manners = Manners(KEEPALIVE, 0, anybody)
        await Server(hardened, refusal, manners, self._bus).serve(listening)

    async def _get_metrics(self, request: Request) -> Answer:
        # The client's Accept header is arbitrary: only the content type we choose may be a key.
        wanted = request.headers.get("accept", "")
        encode, kind = choose_encoder(OPEN_METRICS if "openmetrics" in wanted else "text/plain")

        async def make() -> bytes:
            self._metrics.count_time()
            return encode(self._metrics.registry)

        return Answer(await self._cached.get(kind, make), kind=kind)

    async def _get_health(self, request: Request) -> Answer:
        problems = dict(self._machine.problems())
        if not self._is_private(request):
            problems = dict.fromkeys(problems, HIDDEN)
        report = HealthReport(healthy=not problems, problems=problems)
        return answer(report, status=200 if report.healthy else 503)

    async def _get_status(self, request: Request) -> Answer:
        private = self._is_private(request)

        async def make() -> bytes:
            report = status_report(self._machine)
            rows = await chart(self._machine)
            return encode({"status": report if private else public(report), "chart": rows})

        return Answer(await self._cached.get(("status", private), make))

    async def _get_page(self, _: Request) -> Answer:
        return Answer(self._page, kind="text/html; charset=utf-8")

    def _is_private(self, request: Request) -> bool:
        """Whether the machine itself or the private network asks, without a proxy in between.

        A web page whose own name points here (DNS rebinding) is recognised by that name.
        """
        if any(name in request.headers for name in _FORWARDED):
            return False
        if not _OWN_HOSTS.fullmatch(request.headers.get("host", "")):
            return False
        try:
            host = Network.host(request.remote)
        except ValueError:
            return False
        return is_own(host) or any_covers(self._machine.current.value.private_networks, host)


def _content_policy(page: bytes) -> str:
    """Only the page's own script and style, and requests only to its own origin."""

    def source(tag: bytes) -> str:
        content = page.partition(b"<%b>" % tag)[2].partition(b"</%b>" % tag)[0]
        return "'sha256-" + base64.b64encode(hashlib.sha256(content).digest()).decode() + "'"

    return (
        f"default-src 'none'; script-src {source(b'script')}; style-src {source(b'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
