"""`swarm-agent keys`, `bans`, `ban`, `unban`, `egress`: access in, and connections out."""

import click

from agent import words
from agent.cli import client
from agent.cli.options import TIME, json_option
from agent.cli.tables import table
from agent.observe.reports import BanOrder, BanReport, BansLifted, EgressReport, KeysReport

BANS = "/v1/bans"


@click.command()
@json_option
def keys(as_json: bool) -> None:
    """List the keys that may log in, and the lines that were refused."""
    report = client.get("/v1/keys", KeysReport)
    if as_json:
        click.echo(client.to_json(report))
        return
    rows = [(key.name, key.type, key.fingerprint, key.source) for key in report.keys]
    click.echo(table(("name", "type", "fingerprint", "source"), rows))
    for key in report.keys:
        if key.problem:
            click.echo(f"lets nobody in: {key.name} ({key.source}): {key.problem}", err=True)
    for refused in report.refused:
        click.echo(f"refused: {refused}", err=True)
    for odd in report.odd:
        click.echo(f"note: {odd}", err=True)
    if report.in_home:
        click.echo(f"note: {report.in_home}", err=True)


@click.command()
@json_option
def bans(as_json: bool) -> None:
    """List active bans: address, remaining time, reason."""
    report = client.get(BANS, list[BanReport])
    if as_json:
        click.echo(client.to_json(report))
        return
    if not report:
        click.echo("nobody is banned")
        return
    rows = [
        (entry.network, words.duration(entry.seconds), str(entry.times), entry.reason)
        for entry in report
    ]
    click.echo(table(("network", "for", "times", "because of"), rows))


@click.command()
@click.argument("network")
@click.option("--for", "seconds", type=TIME, help="How long, such as 1h; default: SWARM_BANTIME.")
def ban(network: str, seconds: float | None) -> None:
    """Ban an address or network and close its open connections that have not logged in."""
    done = client.ask("POST", BANS, BanReport, BanOrder(network, seconds))
    click.echo(f"{done.network} is banned for {words.duration(done.seconds)}")


@click.command()
@click.argument("network", required=False)
@click.option("--all", "everything", is_flag=True, help="Lift every ban.")
def unban(network: str | None, everything: bool) -> None:
    """Lift the ban of an address or network."""
    if (network is None) != everything:
        raise click.UsageError("name an address or network, or give --all")
    path = BANS if network is None else f"{BANS}?network={client.quoted(network)}"
    lifted = client.ask("DELETE", path, BansLifted).lifted
    if network is not None and not lifted:
        raise click.ClickException(f"{network} is not banned: swarm-agent bans lists the bans")
    click.echo(f"{words.plural(lifted, 'ban')} lifted")


@click.command()
@json_option
def egress(as_json: bool) -> None:
    """Show where processes may connect to, and what was refused in the last ten minutes."""
    report = client.get("/v1/egress", EgressReport)
    if as_json:
        click.echo(client.to_json(report))
        return
    if report.mode == "open":
        click.echo("open: processes may connect anywhere (SWARM_EGRESS)")
        return
    rest = ", the web and SSH" if report.mode == "standard" else "; nothing else"
    click.echo(f"{report.mode}: allowed are the listed names and networks, DNS, loopback{rest}\n")
    rows = [(name, ", ".join(found) or "no address now") for name, found in report.names.items()]
    rows += [(network, "") for network in report.networks]
    click.echo(table(("allowed", "addresses"), rows))
    if report.refused:
        refused = sorted(report.refused.items(), key=lambda entry: -entry[1])
        click.echo("\n" + table(("refused", "packets"), [(d, str(n)) for d, n in refused]))
