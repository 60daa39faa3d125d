"""Metrics that count events; `readings` has the metrics that are read at each scrape.

Label values come from enums and lists in the code. docs/metrics.md is generated from this module
and `readings`.
"""

import platform
import time
from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from agent import __version__
from agent.access.values import Verdict
from agent.events import (
    BanStarted,
    BootPhase,
    ConnectionClosed,
    ConnectionUnused,
    ErrorUnhandled,
    Event,
    HookFailed,
    ListenerOpened,
    PartFailed,
    SessionClosed,
    SessionOpened,
    SignalFailed,
    SleepBegan,
    SuspendFailed,
    WakeJudged,
)
from agent.idle.policy import Cause
from agent.machine import Machine
from agent.observe.idle import SIGNALS
from agent.observe.readings import Live
from agent.state.usage import Totals

WAKES = ("login", "scan", "start")
MODES = ("stop", "suspend")

_VERDICTS = {verdict.value: verdict.name.lower() for verdict in Verdict} | {"cut": "cut"}
_DURATIONS = (10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 48 * 3600)


class Metrics:
    """Counts every event. Without a machine it only describes the metrics."""

    def __init__(self, machine: Machine | None) -> None:
        # A `_created` series per counter would tell a scraper nothing new.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"swarm_{name}", text, labels, registry=registry)

        build = Info("swarm_build", "Version of the agent and of its Python.", registry=registry)
        build.info({"version": __version__, "python": platform.python_version()})
        self._boot = Gauge(
            "swarm_boot_seconds", "Time from exec to the open SSH listener.", registry=registry
        )
        self._phases = Gauge(
            "swarm_boot_phase_seconds",
            "How long a phase of the boot took.",
            ["phase"],
            registry=registry,
        )
        self._opened = counter("sessions_opened", "Logins.")
        self._duration = Histogram(
            "swarm_session_duration_seconds",
            "How long sessions lasted.",
            buckets=_DURATIONS,
            registry=registry,
        )
        self._received = counter("session_received_bytes", "Bytes received in ended sessions.")
        self._sent = counter("session_sent_bytes", "Bytes sent in ended sessions.")
        self._authentications = counter(
            "authentications", "Connections that reached sshd, by result.", ["result"]
        )
        self._bans_started = counter("bans_started", "Bans.")
        self._signal_errors = counter(
            "signal_errors", "How often a signal of activity became unreadable.", ["signal"]
        )
        self._wakes = counter("wakes", "Wake-ups, including previous runs.", ["reason"])
        self._sleeps = counter("sleeps", "Sleeps, including previous runs.", ["reason", "mode"])
        self._suspends_failed = counter("suspends_failed", "Suspends that became a stop.")
        self._hook_errors = counter("hook_errors", "Programs in sleep.d that failed.")
        self._awake = counter("awake_seconds", "Time awake, including previous runs.")
        self._parts_failed = counter(
            "parts_failed", "Crashes of parts that SSH does not depend on."
        )
        self._errors = counter("errors_unhandled", "Unexpected errors in the event loop.")
        self._prepare_labels()
        registry.register(Live(machine))
        ProcessCollector(namespace="swarm_agent", registry=registry)
        self._counted = time.monotonic()

    def resume(self, totals: Totals, began: float) -> None:
        """Continue the counts of previous runs; this one began at `began` (monotonic)."""
        self._counted = began
        self._awake.inc(totals.awake)
        for name, value in totals.counters.items():
            kind, *labels = name.split("/")
            if kind == "wakes" and labels[0] in WAKES:
                self._wakes.labels(*labels).inc(value)
            elif kind == "sleeps" and labels[0] in {cause.value for cause in Cause}:
                self._sleeps.labels(*labels).inc(value)

    def count_time(self) -> None:
        """Add the time since the last call to the time awake."""
        now = time.monotonic()
        self._awake.inc(now - self._counted)
        self._counted = now

    def hear(self, event: Event) -> None:
        """Count one event."""
        match event:
            case BootPhase():
                self._phases.labels(event.phase).set(event.seconds)
            case ListenerOpened():
                self._boot.set(event.seconds)
            case SessionOpened():
                self._opened.inc()
                self._authentications.labels("login").inc()
            case SessionClosed():
                self._duration.observe(event.seconds)
                self._received.inc(event.bytes_in)
                self._sent.inc(event.bytes_out)
            case ConnectionClosed():
                self._authentications.labels(_VERDICTS[event.verdict]).inc()
            case ConnectionUnused():
                self._authentications.labels("nothing").inc()
            case BanStarted():
                self._bans_started.inc()
            case _:
                self._hear_of_life(event)

    def _hear_of_life(self, event: Event) -> None:
        match event:
            case SignalFailed():
                self._signal_errors.labels(event.signal).inc()
            case WakeJudged():
                self._wakes.labels(event.reason).inc()
            case SleepBegan():
                self._sleeps.labels(event.reason, event.mode).inc()
            case SuspendFailed():
                self._suspends_failed.inc()
            case HookFailed():
                self._hook_errors.inc()
            case PartFailed():
                self._parts_failed.inc()
            case ErrorUnhandled():
                self._errors.inc()

    def _prepare_labels(self) -> None:
        # Every label value exists from the start, so that a rate does not miss the first event.
        for result in _VERDICTS.values():
            self._authentications.labels(result)
        for signal in SIGNALS:
            self._signal_errors.labels(signal)
        for reason in WAKES:
            self._wakes.labels(reason)
        for cause in Cause:
            for mode in MODES:
                self._sleeps.labels(cause.value, mode)
