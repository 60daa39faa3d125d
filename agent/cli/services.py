"""`swarm-agent services` and `logs`: the container's other processes."""

import time
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from agent import words
from agent.cli import client
from agent.cli.options import json_option
from agent.cli.tables import table
from agent.observe.reports import LineReport, ServiceReport, ServicesReport

PATH = "/v1/services"


def _known(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    try:
        found = client.get(PATH, ServicesReport).services
    except click.ClickException:
        return []  # a completion cannot report errors
    return [
        CompletionItem(each.name, help=each.state) for each in found if each.name.startswith(typed)
    ]


_service = click.argument("service", shell_complete=_known)


@click.command()
@json_option
def services(as_json: bool) -> None:
    """List the container's services."""
    report = client.get(PATH, ServicesReport)
    click.echo(client.to_json(report) if as_json else _show(report))


@click.command()
@_service
def start(service: str) -> None:
    """Start a service, and the services it requires."""
    _order(service, "start")


@click.command()
@_service
def stop(service: str) -> None:
    """Stop a service, after the services that require it."""
    _order(service, "stop")


@click.command()
@_service
def restart(service: str) -> None:
    """Restart a service and the services that require it."""
    _order(service, "restart")


@click.command()
@_service
@click.option("-f", "--follow", is_flag=True, help="Print new lines as they come.")
def logs(service: str, follow: bool) -> None:
    """Show the last lines of a service."""
    path = f"{PATH}/{client.quoted(service)}/logs"
    lines = client.get(path, list[LineReport])
    _print(lines)
    if follow:
        client.end_at_once_on_interrupt()
    while follow:
        number = lines[-1].number if lines else 0
        # The agent answers when there are new lines, or after a while with none.
        new = client.get(f"{path}?after={number}&wait=8", list[LineReport])
        _print(new)
        lines = new or lines


def _show(report: ServicesReport) -> str:
    """One line per service, and the refused files."""
    now = time.time()
    rows = [
        (
            entry.name,
            entry.state,
            words.duration(now - entry.since),
            "" if entry.pid is None else str(entry.pid),
            str(entry.restarts),
            entry.detail,
        )
        for entry in report.services
    ]
    shown = table(("service", "state", "for", "pid", "restarts", ""), rows)
    refused = "".join(f"\nnot used: {each}" for each in report.refused)
    return (shown if rows else "there are no services") + refused


def _order(name: str, verb: str) -> None:
    entry = client.ask("POST", f"{PATH}/{client.quoted(name)}/{verb}", ServiceReport)
    detail = f": {entry.detail}" if entry.detail else ""
    click.echo(f"{entry.name} is {entry.state}{detail}")


def _print(lines: Sequence[LineReport]) -> None:
    for line in lines:
        stamp = time.strftime("%H:%M:%S", time.gmtime(line.at))
        mark = "!" if line.stream == "stderr" else " "
        click.echo(f"{stamp} {mark} {line.text}")
