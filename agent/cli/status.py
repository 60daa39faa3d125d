"""`swarm-agent status` and `health`: everything at a glance."""

import time
from collections.abc import Iterator

import click

from agent import words
from agent.cli import client
from agent.cli.agents import says
from agent.cli.options import json_option, show, watch_option
from agent.cli.sessions import sessions_table
from agent.cli.tables import wrapped
from agent.cli.why import outlook
from agent.observe.reports import HealthReport, SpaceReport, StatusReport


@click.command()
@json_option
@watch_option
def status(as_json: bool, seconds: float | None) -> None:
    """Show everything at a glance."""

    def text() -> str:
        report = client.get("/v1/status", StatusReport)
        return client.to_json(report) if as_json else _show(report)

    show(text, seconds)


@click.command()
@json_option
def health(as_json: bool) -> None:
    """Report whether SSH is usable; the exit status is 1 when it is not."""
    report = client.get("/v1/health", HealthReport)
    if as_json:
        click.echo(client.to_json(report))
    else:
        for part, problem in report.problems.items():
            click.echo(f"{part}: {problem}")
        if report.healthy:
            click.echo("healthy")
    raise SystemExit(0 if report.healthy else 1)


def _show(report: StatusReport) -> str:
    """The report as one screen of text."""
    return "\n".join(_lines(report))


def _lines(report: StatusReport) -> Iterator[str]:
    since = time.strftime("%a %H:%M UTC", time.gmtime(report.awake_since))
    awake = words.duration(report.at - report.awake_since)
    where = f"{report.name} in {report.region}" if report.region else report.name
    yield wrapped(f"{where}: awake since {since} ({awake}), {outlook(report.idle)}")
    yield from (click.style(wrapped(line), fg="red") for line in _problems(report))
    for notice in report.notices:
        ago = words.duration(report.at - notice.since)
        yield click.style(
            wrapped(f"notice of {notice.part}, {ago} ago: {notice.says}"), fg="yellow"
        )
    yield ""
    if report.sessions:
        yield sessions_table(report.sessions, report.at)
    else:
        yield "nobody is logged in"
    yield ""
    for agent in report.agents:
        where = f" in {agent.folder}" if agent.folder else ""
        since = words.duration(report.at - agent.since)
        yield _row(f"agent   {agent.name}{where}: {says(agent)}, for {since}")
    for service in report.services:
        detail = f": {service.detail}" if service.detail else ""
        yield _row(f"service {service.name}  {service.state}{detail}")
    for lease in report.idle.leases:
        left = words.duration(lease.seconds)
        yield _row(f"lease   {lease.because or lease.name}: {left} more at most")
    latest = f", the latest {report.latest_bans[0].network}" if report.latest_bans else ""
    yield f"bans    {report.bans}{latest}"
    yield _row(f"keys    {', '.join(report.keys) or 'none: nobody can log in'}")
    yield _row(f"volume  {_used(report.volume)}")
    yield _row(f"undo    {_checkpoints(report)}")
    yield f"memory  {_used(report.memory)}"
    budget = "" if report.budget_hours is None else f" of {report.budget_hours:g} h"
    yield f"month   awake for {report.used_hours:.1f} h{budget}"
    yield f"agent   swarm-agent {report.version}"


def _row(text: str) -> str:
    """A label and its text, wrapped to several lines if needed."""
    return wrapped(text, " " * 8)


def _problems(report: StatusReport) -> Iterator[str]:
    for part, problem in report.problems.items():
        yield f"problem with {part}: {problem}"
    for service in report.services:
        if service.state == "failed":
            yield f"service {service.name} failed; swarm-agent logs {service.name} says why"
    if report.failures:
        times = "once" if report.failures == 1 else f"{report.failures} times"
        yield f"the agent failed {times} and re-executed in place: {report.latest_failure}"
    for signal in report.idle.signals:
        if signal.problem is not None:
            yield f"problem with the signal {signal.signal}: {signal.problem}"


def _checkpoints(report: StatusReport) -> str:
    if not report.checkpoints:
        return "no checkpoint yet"
    ago = words.duration(report.at - report.checkpoints[0].at)
    return f"{words.plural(report.checkpoints_kept, 'checkpoint')}, the latest {ago} ago"


def _used(space: SpaceReport) -> str:
    if not space.size:
        return f"{space.name} is missing: all data is lost when this machine stops"
    used = space.size - space.free
    name = "" if space.name == "memory" else f"{space.name}, "
    return f"{name}{used / space.size:.0%} of {words.size(space.size)} used"
