"""The status of the machine as one report: what `swarm-agent status` and the page show."""

import os
import time
from collections.abc import Iterator

from msgspec.structs import replace

from agent import __version__
from agent.access.sessions import Session
from agent.clock import clock
from agent.machine import Machine
from agent.observe.checkpoints import checkpoint_report
from agent.observe.crew import agent_reports
from agent.observe.host import Space, memory_space, volume_space
from agent.observe.idle import idle_report
from agent.observe.reports import (
    BanReport,
    ChartReport,
    CodingAgentReport,
    IdleReport,
    NoticeReport,
    SessionReport,
    SignalReport,
    SpaceReport,
    StatusReport,
)
from agent.observe.services import service_reports
from agent.state.usage import SLOT

BANS_SHOWN = 10
CHECKPOINTS_SHOWN = 5
CHART = 86400
HIDDEN = "(hidden)"


def status_report(machine: Machine) -> StatusReport:
    """Everything at a glance."""
    settings = machine.current.value
    now = clock()
    idle = machine.idle
    known = machine.checkpoints.keeper.repository.ledger.checkpoints
    return StatusReport(
        version=__version__,
        name=machine.environ.get("FLY_APP_NAME") or os.uname().nodename,
        region=machine.environ.get("FLY_REGION", ""),
        at=time.time(),
        user=machine.account.name,
        awake_since=time.time() - idle.journal.awake,
        healthy=not machine.problems(),
        problems=dict(machine.problems()),
        notices=[NoticeReport(part, at, says) for part, (at, says) in machine.notices().items()],
        failures=machine.past.failures,
        latest_failure=machine.past.latest,
        reloads=machine.past.reloads,
        idle=idle_report(idle, settings),
        sessions=[session_report(session) for session in machine.sessions],
        agents=agent_reports(machine.crew, ended=False),
        services=service_reports(machine.supervisor),
        checkpoints_kept=len(known),
        checkpoints=[checkpoint_report(each) for each in known[: -CHECKPOINTS_SHOWN - 1 : -1]],
        bans=machine.gate.jail.count(now),
        latest_bans=list(ban_reports(machine, BANS_SHOWN)),
        keys=[key.name for key in machine.keyring.admitting()],
        volume=_space(settings.volume, volume_space(settings.volume)),
        memory=_space("memory", memory_space()),
        budget_hours=settings.budget_hours,
        used_hours=machine.idle.budget.awake / 3600,
    )


def session_report(session: Session) -> SessionReport:
    """One open session."""
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


def ban_reports(machine: Machine, most: int) -> Iterator[BanReport]:
    """The active bans, the latest first, at most `most`."""
    now = clock()
    for ban in machine.gate.jail.active(now, most):
        yield BanReport(
            network=str(ban.network), seconds=ban.until - now, times=ban.times, reason=ban.reason
        )


def public(report: StatusReport) -> StatusReport:
    """The same for strangers: without addresses, users, keys, and texts of programs."""
    return replace(
        report,
        name=HIDDEN,
        user=HIDDEN,
        problems=dict.fromkeys(report.problems, HIDDEN),
        notices=[replace(each, says=HIDDEN) for each in report.notices],
        latest_failure=HIDDEN if report.latest_failure else "",
        idle=_public_idle(report.idle),
        sessions=[
            replace(session, user=HIDDEN, key=HIDDEN, fingerprint=HIDDEN, client=HIDDEN)
            for session in report.sessions
        ],
        agents=[_public_agent(each) for each in report.agents],
        services=[replace(each, detail="", user=HIDDEN, command=[]) for each in report.services],
        latest_bans=[replace(ban, network=HIDDEN, reason=HIDDEN) for ban in report.latest_bans],
        checkpoints=[
            replace(each, note=HIDDEN if each.note else "") for each in report.checkpoints
        ],
        keys=[HIDDEN] * len(report.keys),
    )


async def chart(machine: Machine) -> list[ChartReport]:
    """The last day in steps of ten minutes, the oldest first."""
    end = int(time.time()) // SLOT * SLOT
    known = {slot.start: slot for slot in await machine.memory.usage.since(end - CHART + SLOT)}
    rows = []
    for start in range(end - CHART + SLOT, end + SLOT, SLOT):
        slot = known.get(start)
        rows.append(
            ChartReport(
                start=start,
                awake=slot.awake if slot else 0.0,
                sessions=slot.sessions if slot else 0,
                failures=slot.failures if slot else 0,
            )
        )
    return rows


def _public_idle(report: IdleReport) -> IdleReport:
    def hide(signal: SignalReport) -> SignalReport:
        said = HIDDEN if signal.because else ""
        problem = None if signal.problem is None else HIDDEN
        return replace(signal, because=said, problem=problem, seen=[])

    leases = [replace(lease, name=HIDDEN, pid=None) for lease in report.leases]
    signals = [hide(signal) for signal in report.signals]
    return replace(report, because=HIDDEN, signals=signals, leases=leases)


def _public_agent(report: CodingAgentReport) -> CodingAgentReport:
    return replace(
        report, name=report.tool, folder="", place="", pane="", tmux="", note="", subagents=[]
    )


def _space(name: str, space: Space) -> SpaceReport:
    return SpaceReport(name=name, size=space.size, free=space.free)
