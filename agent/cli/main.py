"""The commands of `swarm-agent`."""

import os
import time

import click

from agent import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """The init, the SSH gate and the watchman of a remote dev container."""


@cli.command()
@click.option("--dry-run", is_flag=True, help="Say who would be banned and ban nobody.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(command: tuple[str, ...], dry_run: bool) -> None:
    """Be the container's init and let its user in over SSH.

    With COMMAND (write -- before it), also run that in the foreground of the container: signals
    reach it, and its exit status becomes the container's.
    """
    from agent.run import run as boot

    environ = dict(os.environ) | ({"SWARM_BAN_DRY_RUN": "on"} if dry_run else {})
    raise SystemExit(boot(command, environ))


@cli.command()
def check() -> None:
    """Show every setting with its source, and look at the machine, without starting anything."""
    from agent.cli import check as checks
    from agent.run import EXIT_CONFIG
    from agent.settings import SettingsError, load

    try:
        loaded = load(os.environ, privileged=os.geteuid() == 0)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(f"swarm-agent: {problem}", err=True)
        raise SystemExit(EXIT_CONFIG) from error
    click.echo(checks.settings_table(loaded) + "\n")
    findings = list(checks.machine(loaded.settings))
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}: {finding.says}")
    raise SystemExit(0 if all(finding.ok for finding in findings) else 1)


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@cli.command()
@_json
def keys(as_json: bool) -> None:
    """List the keys that may log in, and the lines that were refused."""
    from agent import words
    from agent.cli import client
    from agent.observe.reports import KeysReport

    report = client.get("/v1/keys", KeysReport)
    if as_json:
        click.echo(client.to_json(report))
        return
    rows = [(key.name, key.type, key.fingerprint, key.source) for key in report.keys]
    click.echo(words.table(("name", "type", "fingerprint", "source"), rows))
    for refused in report.refused:
        click.echo(f"refused: {refused}", err=True)


@cli.command()
@_json
def egress(as_json: bool) -> None:
    """Show where processes may connect to, and what was refused in the last minutes."""
    from agent import words
    from agent.cli import client
    from agent.observe.reports import EgressReport

    report = client.get("/v1/egress", EgressReport)
    if as_json:
        click.echo(client.to_json(report))
        return
    if report.mode == "open":
        click.echo("open: processes may connect anywhere (SWARM_EGRESS)")
        return
    rest = "; beside it the web and SSH" if report.mode == "standard" else "; nothing else"
    click.echo(f"{report.mode}: what is listed here, DNS and the loopback{rest}\n")
    rows = [(name, ", ".join(found) or "no address now") for name, found in report.names.items()]
    rows += [(network, "") for network in report.networks]
    click.echo(words.table(("allowed", "addresses"), rows))
    if report.refused:
        refused = sorted(report.refused.items(), key=lambda entry: -entry[1])
        click.echo("\n" + words.table(("refused", "packets"), [(d, str(n)) for d, n in refused]))


@cli.command()
@_json
def sessions(as_json: bool) -> None:
    """List the open SSH sessions."""
    from agent.cli import client
    from agent.cli.status import sessions_table
    from agent.observe.reports import SessionReport

    report = client.get("/v1/sessions", list[SessionReport])
    if as_json:
        click.echo(client.to_json(report))
        return
    click.echo(sessions_table(report, time.time()))


@cli.command()
@_json
def health(as_json: bool) -> None:
    """Say whether SSH can be used; exits with 1 when it can't."""
    from agent.cli import client
    from agent.observe.reports import HealthReport

    report = client.get("/v1/health", HealthReport)
    if as_json:
        click.echo(client.to_json(report))
    else:
        for part, problem in report.problems.items():
            click.echo(f"{part}: {problem}")
        if report.healthy:
            click.echo("healthy")
    raise SystemExit(0 if report.healthy else 1)


@cli.command()
@_json
def bans(as_json: bool) -> None:
    """List who stays out, for how long, and why."""
    from agent import words
    from agent.cli import client
    from agent.observe.reports import BanReport

    report = client.get("/v1/bans", list[BanReport])
    if as_json:
        click.echo(client.to_json(report))
        return
    rows = [
        (entry.network, words.duration(entry.seconds), str(entry.times), entry.reason)
        for entry in report
    ]
    click.echo(words.table(("network", "for", "times", "because of"), rows))


@cli.command()
@click.argument("network")
@click.option("--for", "time", metavar="TIME", help="How long, such as 1h; else as bantime says.")
def ban(network: str, time: str | None) -> None:
    """Keep an address or network out, and cut what it has open without a login."""
    from agent import words
    from agent.cli import client
    from agent.observe.reports import BanOrder, BanReport
    from agent.settings.units import positive_duration

    try:
        seconds = None if time is None else positive_duration(time)
    except ValueError as error:
        raise click.BadParameter(f"{time!r}: expected {error}", param_hint="--for") from error
    done = client.ask("POST", "/v1/bans", BanReport, BanOrder(network, seconds))
    click.echo(f"{done.network} stays out for {words.duration(done.seconds)}")


@cli.command()
@click.argument("network", required=False)
@click.option("--all", "everything", is_flag=True, help="Lift every ban.")
def unban(network: str | None, everything: bool) -> None:
    """Let an address or network in again."""
    from urllib.parse import quote

    from agent.cli import client
    from agent.observe.reports import BansLifted

    if (network is None) != everything:
        raise click.UsageError("name an address or network, or give --all")
    path = "/v1/bans" if network is None else f"/v1/bans?network={quote(network)}"
    lifted = client.ask("DELETE", path, BansLifted).lifted
    if network is not None and not lifted:
        raise click.ClickException(f"{network} is not banned: swarm-agent bans shows who is")
    click.echo(f"{lifted} lifted")


@cli.command()
@_json
def why(as_json: bool) -> None:
    """Say what keeps the machine awake, what does not count, and when it sleeps."""
    from agent.cli import client
    from agent.cli.why import show
    from agent.observe.reports import IdleReport

    report = client.get("/v1/idle", IdleReport)
    click.echo(client.to_json(report) if as_json else show(report))


@cli.command()
@click.option("--for", "time", metavar="TIME", help="How long, such as 2h.")
@click.option("--name", help="What to call it; taking it again under this name replaces it.")
@click.option("--list", "show", is_flag=True, help="List what holds the machine awake.")
@click.option("--release", metavar="NAME", help="Hold it no longer.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing when it worked.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def awake(
    time: str | None,
    name: str | None,
    show: bool,
    release: str | None,
    quiet: bool,
    command: tuple[str, ...],
) -> None:
    """Hold the machine awake: for a time, or while COMMAND runs (write -- before it)."""
    from agent.cli import leases

    if sum((time is not None, bool(command), show, release is not None)) != 1:
        raise click.UsageError("give one of --for TIME, -- COMMAND, --list, --release NAME")
    if time is not None:
        said = leases.hold(time, name or "by-hand")
    elif command:
        leases.run(command, name)
    elif release is not None:
        said = leases.release(release)
    else:
        said, quiet = leases.listing(), False
    if not quiet:
        click.echo(said)


@cli.command()
@click.option("--now", is_flag=True, help="At once, without a warning to anybody.")
def sleep(now: bool) -> None:
    """Put the machine to sleep, whatever is active; a login or a lease takes it back."""
    from agent.cli import client
    from agent.observe.reports import SleepOrder

    client.ask("POST", "/v1/sleep", SleepOrder, SleepOrder(now=now))
    click.echo("going to sleep" + ("" if now else " after a warning: swarm-agent why says when"))


@cli.command()
def reload() -> None:
    """Have the agent read everything anew; sessions and services go on, no client is refused."""
    from agent.cli.reload import reload as order

    click.echo(order())


@cli.command()
@_json
@click.option(
    "--watch",
    "seconds",
    is_flag=False,
    flag_value=2.0,
    type=float,
    metavar="SECONDS",
    help="Show it again and again (every 2 seconds).",
)
def status(as_json: bool, seconds: float | None) -> None:
    """Show everything at a glance."""
    from agent.cli import client
    from agent.cli.status import show
    from agent.observe.reports import StatusReport

    if seconds is not None:
        client.end_at_once_on_interrupt()
    while True:
        report = client.get("/v1/status", StatusReport)
        text = client.to_json(report) if as_json else show(report)
        if seconds is None:
            click.echo(text)
            return
        # Home, the text with each line cleared to its end, and all below it cleared.
        click.echo("\x1b[H" + text.replace("\n", "\x1b[K\n") + "\x1b[K\n\x1b[J", nl=False)
        time.sleep(seconds)


@cli.command()
@click.argument("session")
def kick(session: str) -> None:
    """End an SSH session; `swarm-agent sessions` lists them."""
    from urllib.parse import quote

    from agent.cli import client
    from agent.observe.reports import Kicked

    done = client.ask("DELETE", f"/v1/sessions?id={quote(session)}", Kicked)
    click.echo(f"{done.id} ends")


@cli.command()
@_json
@click.option("--since", default="7d", metavar="TIME", help="How far back, such as 12h or 30d.")
def history(as_json: bool, since: str) -> None:
    """List who was logged in, when, from where, and why it ended."""
    from agent.cli import client
    from agent.cli.status import history_table
    from agent.observe.reports import HistoryReport
    from agent.settings.units import positive_duration

    try:
        start = time.time() - positive_duration(since)
    except ValueError as error:
        raise click.BadParameter(f"{since!r}: expected {error}", param_hint="--since") from error
    entries = client.get(f"/v1/history?since={start:.0f}", list[HistoryReport])
    click.echo(client.to_json(entries) if as_json else history_table(entries))


@cli.command()
@_json
def usage(as_json: bool) -> None:
    """Show how long the machine was awake by day and month, and what that costs."""
    from agent.cli import client
    from agent.cli.status import usage_table
    from agent.observe.reports import UsageReport

    report = client.get("/v1/usage", UsageReport)
    click.echo(client.to_json(report) if as_json else usage_table(report))


@cli.command()
@_json
def services(as_json: bool) -> None:
    """List the container's other services."""
    from agent.cli import client
    from agent.cli.services import PATH, table
    from agent.observe.reports import ServicesReport

    report = client.get(PATH, ServicesReport)
    click.echo(client.to_json(report) if as_json else table(report))


@cli.command()
@click.argument("service")
def start(service: str) -> None:
    """Start a service, and those that it requires."""
    from agent.cli.services import order

    click.echo(order(service, "start"))


@cli.command()
@click.argument("service")
def stop(service: str) -> None:
    """Stop a service, after those that require it."""
    from agent.cli.services import order

    click.echo(order(service, "stop"))


@cli.command()
@click.argument("service")
def restart(service: str) -> None:
    """Stop and start a service, and those that require it."""
    from agent.cli.services import order

    click.echo(order(service, "restart"))


@cli.command()
@click.argument("service")
@click.option("-f", "--follow", is_flag=True, help="Go on with what it says.")
def logs(service: str, follow: bool) -> None:
    """Show what a service said last."""
    from agent.cli.services import logs as show

    show(service, follow=follow)
