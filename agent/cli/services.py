"""`swarm-agent services` and `logs`: the container's other processes."""

import time
from collections.abc import Sequence
from urllib.parse import quote

import click

from agent import words
from agent.cli import client
from agent.observe.reports import LineReport, ServiceReport, ServicesReport

PATH = "/v1/services"


def table(report: ServicesReport) -> str:
    """One line a service, and the files that are not used."""
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
    shown = words.table(("service", "state", "for", "pid", "restarts", ""), rows)
    refused = "".join(f"\nnot used: {each}" for each in report.refused)
    return (shown if rows else "there are no services") + refused


def order(name: str, verb: str) -> str:
    """Have a service started, stopped or restarted; what to tell the user."""
    entry = client.ask("POST", f"{PATH}/{quote(name, safe='')}/{verb}", ServiceReport)
    detail = f": {entry.detail}" if entry.detail else ""
    return f"{entry.name} is {entry.state}{detail}"


def logs(name: str, *, follow: bool) -> None:
    """Print the last lines of a service, and with `follow` those that come."""
    path = f"{PATH}/{quote(name, safe='')}/logs"
    lines = client.get(path, list[LineReport])
    _print(lines)
    if follow:
        client.end_at_once_on_interrupt()
    while follow:
        number = lines[-1].number if lines else 0
        # The agent answers when there is something, or after a while with nothing.
        new = client.get(f"{path}?after={number}&wait=8", list[LineReport])
        _print(new)
        lines = new or lines


def _print(lines: Sequence[LineReport]) -> None:
    for line in lines:
        stamp = time.strftime("%H:%M:%S", time.gmtime(line.at))
        mark = "!" if line.stream == "stderr" else " "
        click.echo(f"{stamp} {mark} {line.text}")
