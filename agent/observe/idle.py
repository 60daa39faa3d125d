"""The reports of the idle part: why the machine is awake, and which leases hold it."""

from agent.clock import clock
from agent.idle.idle import Idle
from agent.idle.leasekeeper import LeaseKeeper
from agent.idle.leases import Lease
from agent.idle.policy import Awake, Sleep, Warn, decide, held, sleeps_at
from agent.idle.watch import View
from agent.observe.reports import IdleReport, LeaseReport, SignalReport, SignReport
from agent.settings import Settings

SIGNALS = ("login", "terminal", "ssh", "cpu", "network", "writes", "lease", "check")
"""In the order of the table: the most telling signals first."""


def idle_report(idle: Idle, settings: Settings) -> IdleReport:
    """The report of `swarm-agent why`."""
    now = clock()
    decision = idle.watch.decision()
    leases = idle.leases.active()
    at = sleeps_at(decision, now)
    if leases and isinstance(decision, Awake):
        at = sleeps_at(decide(held(idle.watch.seen, leases[0].until), settings, now), now)
    match decision:
        case Awake():
            state = "awake"
        case Warn():
            state = "warned"
        case Sleep():
            state = "sleeping"
    on = idle.watch.signal_names
    return IdleReport(
        state=state,
        because=decision.because,
        sleeps_in=None if at is None else at - now,
        mode=settings.sleep_mode,
        awake=now - idle.watch.seen.woke,
        signals=[
            _signal_report(name, name in on, idle.watch.views.get(name, View()), now)
            for name in SIGNALS
        ],
        leases=[lease_report(lease) for lease in leases],
    )


def lease_reports(leases: LeaseKeeper) -> list[LeaseReport]:
    """The active leases."""
    return [lease_report(lease) for lease in leases.active()]


def lease_report(lease: Lease) -> LeaseReport:
    """One lease."""
    pid = None if lease.holder is None else lease.holder.pid
    return LeaseReport(
        name=lease.name, seconds=lease.until - clock(), pid=pid, because=lease.because
    )


def _signal_report(name: str, on: bool, view: View, now: float) -> SignalReport:
    latest = view.latest
    return SignalReport(
        signal=name,
        on=on,
        idle=None if latest is None else now - latest.at,
        because="" if latest is None else latest.because,
        problem=view.problem,
        seen=[SignReport(sign.active, sign.because) for sign in view.signs],
    )
