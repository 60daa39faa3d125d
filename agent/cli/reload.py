"""`swarm-agent reload`: have the agent re-execute in place, and wait until it has."""

import time

import click

from agent import words
from agent.cli import client
from agent.observe.reports import ReloadReport, StatusReport

PATIENCE = 30.0
"""Seconds that the new agent may take until it answers."""


@click.command()
def reload() -> None:
    """Re-read all settings; sessions and services keep running."""
    click.echo(_order())


def _order() -> str:
    """The result, once the new agent answers. Raises `click.ClickException`."""
    wanted = client.ask("POST", "/v1/reload", ReloadReport).reloads
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            report = client.get("/v1/status", StatusReport)
        except click.ClickException:
            report = None  # the socket does not exist while the agent re-executes
        if report is not None and report.reloads >= wanted:
            _tell_what_is_refused(report)
            sessions = words.plural(len(report.sessions), "session")
            services = words.plural(len(report.services), "service")
            return f"reloaded: {sessions} and {services} kept running"
        time.sleep(0.1)
    raise click.ClickException(
        f"the agent does not answer {PATIENCE:g} s after the reload: its log says why"
    )


def _tell_what_is_refused(report: StatusReport) -> None:
    for notice in report.notices:
        if notice.part == "settings":
            raise click.ClickException(f"the agent keeps its previous settings; {notice.says}")
