"""`swarm-agent check`: effective settings with their sources, and the state of the machine."""

import os

import click

from agent.cli import client
from agent.cli.options import json_option
from agent.cli.tables import table, wrapped
from agent.observe.reports import CheckReport


@click.command()
@json_option
@click.option("--all", "everything", is_flag=True, help="Also settings that have their default.")
def check(as_json: bool, everything: bool) -> None:
    """Show settings with their sources, and check that the machine has what SSH needs.

    The running agent answers. If none runs, this shows what an agent started here would use.
    """
    if client.answers():
        report = client.get("/v1/check", CheckReport)
        click.echo("as the running agent reads them:\n", err=True)
    else:
        report = _here()
        click.echo("no agent runs; one started here would use:\n", err=True)
    if as_json:
        click.echo(client.to_json(report))
    else:
        click.echo(_show(report, everything=everything))
    raise SystemExit(0 if all(finding.ok for finding in report.findings) else 1)


def _here() -> CheckReport:
    # Imports much of the agent, which only this case needs.
    from agent.observe.check import check as look
    from agent.settings import SettingsError, load

    try:
        loaded = load(os.environ, privileged=os.geteuid() == 0)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(f"swarm-agent: {problem}", err=True)
        raise SystemExit(os.EX_CONFIG) from error
    return look(loaded, os.environ)


def _show(report: CheckReport, *, everything: bool) -> str:
    rows = [
        (each.setting, each.value or "(empty)", each.source)
        for each in report.settings
        if everything or each.source != "default"
    ]
    lines = [table(("setting", "value", "source"), rows) if rows else "every setting is default"]
    if not everything:
        lines.append("\nall other settings have their defaults: --all shows them")
    lines.append("")
    for finding in report.findings:
        mark, colour = ("ok  ", "green") if finding.ok else ("FAIL", "red")
        text = wrapped(f"{mark}  {finding.what}: {finding.says}", " " * 6)
        lines.append(click.style(mark, fg=colour) + text.removeprefix(mark))
    return "\n".join(lines)
