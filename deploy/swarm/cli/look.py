"""Commands that only show something."""

import sys
from collections.abc import Iterable

import click

from agent import words
from deploy.swarm import fleet, place
from deploy.swarm import status as statuses
from deploy.swarm.cli import common
from deploy.swarm.finding import Finding, Level
from deploy.swarm.flyerrors import FlyError
from deploy.swarm.place import Place
from deploy.swarm.show import Show


@click.command(name="list")
@common.as_json
def list_(as_json: bool) -> None:
    """List the machines with state, last use and cost."""
    names = place.all_names()
    if not names and not as_json:
        click.echo("no machine yet: swarm up NAME")
        return
    rows = fleet.rows(names)
    if as_json:
        common.put_json(rows)
        return
    cells = [
        (
            each.name,
            f"? {each.problem}" if each.state == "?" else each.state,
            each.region,
            common.when(each.seen) if each.seen else "-",
            each.size,
            each.cost,
            each.agents,
        )
        for each in rows
    ]
    head = ("name", "state", "region", "last seen awake", "size", "cost", "coding agents")
    click.echo(words.table(head, cells))


@click.command()
@common.name_or_all
@common.all_
@common.as_json
def status(name: str, all_: bool, as_json: bool) -> None:
    """Show state, sessions and cost; a sleeping machine is not woken."""
    if as_json:
        if bool(name) == all_:
            raise click.UsageError("name one machine, or --all")
        if name:
            common.known(name)
        found = fleet.reports([name] if name else place.all_names())
        common.put_json(found)
        sys.exit(any(each.row.problem and each.row.state == "?" for each in found))
    if all_ and not name:
        results = fleet.Fleet(place.all_names()).look(statuses.text_of)
        common.summary(results)
    common.for_each(name, all_, lambda each, show: statuses.text(*common.known(each, show)))


@click.command()
@common.name_or_all
@common.all_
@common.as_json
def usage(name: str, all_: bool, as_json: bool) -> None:
    """Show time awake and estimated cost; for a sleeping machine, as last seen."""

    def noted(each: str, show: Show) -> Place:
        where, fly = common.known(each, show)
        machine = fly.machine(each)
        if machine is not None and machine.awake:
            statuses.note_usage(where, fly, machine)
        return where

    def work(each: str, show: Show) -> str:
        state = noted(each, show).state()
        if not state.usage:
            return f"{each} was not seen awake yet"
        return f"as of {common.when(state.seen)}:\n{state.usage}"

    if as_json:
        names = [name] if name else place.all_names()
        states = [(each, noted(each, Show()).state()) for each in names]
        common.put_json(
            [{"name": each, "seen": state.seen, "usage": state.usage} for each, state in states]
        )
        return
    common.for_each(name, all_, work)


@click.command()
@common.name
@common.as_json
def audit(name: str, as_json: bool) -> None:
    """Check the machine's safety: pass, warn, fail, and what to do."""
    from deploy.swarm import audit as audits  # importing it would slow `list` down

    where, fly = common.known(name)
    _show(audits.audit(where, fly), as_json)


@click.command()
@common.name
@common.as_json
def doctor(name: str, as_json: bool) -> None:
    """Check each step of a connection and report the first that fails."""
    from deploy.swarm import audit as audits

    where = Place(name)
    findings = [audits.newest_ssh()]
    try:
        fly = common.flyctl(where.state().local)
        findings += audits.doctor(where, fly)
    except FlyError as error:
        findings.append(Finding(Level.FAIL, str(error)))
    _show(findings, as_json)


def _show(findings: Iterable[Finding], as_json: bool) -> None:
    found = list(findings)
    failed = any(each.level is Level.FAIL for each in found)
    if as_json:
        common.put_json(found)
        sys.exit(failed)
    for finding in found:
        colour = {Level.WARN: "yellow", Level.FAIL: "red"}.get(finding.level)
        click.echo(f"{click.style(f'{finding.level.value:4}', fg=colour)}  {finding.says}")
        if finding.todo:
            click.echo(f"      → {finding.todo}")
    sys.exit(failed)
