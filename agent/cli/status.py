"""`swarm-agent status`, `history` and `usage` as text."""

import time
from collections.abc import Iterator, Sequence

from agent import words
from agent.observe.reports import (
    HistoryReport,
    IdleReport,
    SessionReport,
    SpaceReport,
    StatusReport,
    UsageReport,
)


def show(report: StatusReport) -> str:
    """One screen."""
    return "\n".join(_lines(report))


def sessions_table(sessions: Sequence[SessionReport], now: float) -> str:
    """The open sessions."""
    rows = [
        (
            entry.id,
            entry.user,
            entry.key,
            entry.client,
            words.duration(now - entry.since),
            words.duration(entry.idle),
            words.size(entry.bytes_in),
            words.size(entry.bytes_out),
        )
        for entry in sessions
    ]
    head = ("session", "user", "key", "from", "open for", "idle", "in", "out")
    return words.table(head, rows)


def history_table(entries: Sequence[HistoryReport]) -> str:
    """The sessions that were, the latest first."""
    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.opened)),
            "" if entry.closed is None else words.duration(entry.closed - entry.opened),
            entry.user,
            entry.key,
            entry.client,
            words.size(entry.bytes_in),
            words.size(entry.bytes_out),
            entry.reason or "open, or the machine ended with it",
        )
        for entry in entries
    ]
    head = ("login (UTC)", "open for", "user", "key", "from", "in", "out", "ended")
    return words.table(head, rows)


def usage_table(report: UsageReport) -> str:
    """Time awake by day and by month, with costs where they are known."""
    days = words.table(("day", *_head(report)), [*_usage_rows(report.days, report)])
    months = words.table(("month", *_head(report)), [*_usage_rows(report.months, report)])
    budget = "" if report.budget_hours is None else f"budget: {report.budget_hours:g} h a month\n"
    return f"{days}\n\n{months}\n\n{budget}{report.price_note}"


def _lines(report: StatusReport) -> Iterator[str]:
    since = time.strftime("%a %H:%M UTC", time.gmtime(report.awake_since))
    awake = words.duration(report.at - report.awake_since)
    yield f"swarm-agent {report.version}: awake since {since} ({awake}), {_sleep(report.idle)}"
    for part, problem in report.problems.items():
        yield f"problem with {part}: {problem}"
    if report.failures:
        times = "once" if report.failures == 1 else f"{report.failures} times"
        yield f"the agent failed {times} and re-executed in place: {report.latest_failure}"
    for notice in report.notices:
        ago = words.duration(report.at - notice.since)
        yield f"notice of {notice.part}, {ago} ago: {notice.says}"
    for signal in report.idle.signals:
        if signal.problem is not None:
            yield f"problem with the signal {signal.signal}: {signal.problem}"
    yield ""
    if report.sessions:
        yield sessions_table(report.sessions, report.at)
    else:
        yield "nobody is logged in"
    yield ""
    for service in report.services:
        detail = f": {service.detail}" if service.detail else ""
        yield f"service {service.name}  {service.state}{detail}"
    for lease in report.idle.leases:
        yield f"lease   {lease.name}: {words.duration(lease.seconds)} more at most"
    latest = f", the latest {report.latest_bans[0].network}" if report.latest_bans else ""
    yield f"bans    {report.bans}{latest}"
    yield f"keys    {', '.join(report.keys) or 'none: nobody can log in'}"
    yield f"volume  {_used(report.volume)}"
    yield f"memory  {_used(report.memory)}"
    budget = "" if report.budget_hours is None else f" of {report.budget_hours:g} h"
    yield f"month   awake for {report.used_hours:.1f} h{budget}"


def _sleep(idle: IdleReport) -> str:
    if idle.sleeps_in is None:
        return "does not sleep by itself"
    if idle.state == "awake":
        return f"sleeps in {words.duration(idle.sleeps_in)} unless something happens"
    return f"sleeps in {words.duration(idle.sleeps_in)}: {idle.because}"


def _used(space: SpaceReport) -> str:
    if not space.size:
        return f"{space.name} is missing: nothing outlives this machine"
    used = space.size - space.free
    name = "" if space.name == "memory" else f"{space.name}, "
    return f"{name}{used / space.size:.0%} of {words.size(space.size)} used"


def _head(report: UsageReport) -> tuple[str, ...]:
    return ("awake",) if report.hour_price is None else ("awake", f"about {report.currency}")


def _usage_rows(awake: dict[str, float], report: UsageReport) -> Iterator[tuple[str, ...]]:
    for unit, seconds in awake.items():
        row = (unit, words.duration(seconds))
        price = report.hour_price
        yield row if price is None else (*row, f"{seconds / 3600 * price:.2f}")
