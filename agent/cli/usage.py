"""`swarm-agent usage`: time awake, and estimated costs."""

from collections.abc import Iterator

import click

from agent import words
from agent.cli import client
from agent.cli.options import json_option
from agent.cli.tables import table, wrapped
from agent.observe.reports import UsageReport


@click.command()
@json_option
def usage(as_json: bool) -> None:
    """Show how long the machine was awake by day and month, and the estimated costs."""
    report = client.get("/v1/usage", UsageReport)
    click.echo(client.to_json(report) if as_json else _show(report))


def _show(report: UsageReport) -> str:
    days = table(("day", *_head(report)), [*_rows(report.days, report)])
    months = table(("month", *_head(report)), [*_rows(report.months, report)])
    budget = "" if report.budget_hours is None else f"budget: {report.budget_hours:g} h a month\n"
    return f"{days}\n\n{months}\n\n{budget}{wrapped(report.price_note)}"


def _head(report: UsageReport) -> tuple[str, ...]:
    return ("awake",) if report.hour_price is None else ("awake", f"about {report.currency}")


def _rows(awake: dict[str, float], report: UsageReport) -> Iterator[tuple[str, ...]]:
    for unit, seconds in awake.items():
        row = (unit, words.duration(seconds))
        price = report.hour_price
        yield row if price is None else (*row, f"{seconds / 3600 * price:.2f}")
