"""`swarm-agent notify`: test whether the addresses of SWARM_NOTIFY can be reached."""

import click

from agent.cli import client
from agent.observe.reports import NotifyReport


@click.command()
@click.option("--test", is_flag=True, required=True, help="Send a message to every address now.")
def notify(test: bool) -> None:  # noqa: ARG001  # required, so that nobody sends by accident
    """Send a test message to the addresses of SWARM_NOTIFY; the exit status is 1 if one fails."""
    report = client.ask("POST", "/v1/notify", NotifyReport)
    if not report.outcomes:
        raise click.ClickException("SWARM_NOTIFY has no address: docs/agents.md says how to set it")
    for each in report.outcomes:
        click.echo(f"line {each.line} ({each.kind}): {each.problem or 'sent'}")
    raise SystemExit(any(each.problem for each in report.outcomes))
