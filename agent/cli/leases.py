"""`swarm-agent awake` and `sleep`: hold the machine awake, or put it to sleep."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from agent import words
from agent.cli import client
from agent.cli.options import TIME
from agent.cli.tables import table
from agent.exits import exit_status_of
from agent.observe.reports import LeaseOrder, LeaseReport, SleepOrder

_PATH = "/v1/leases"


def _held(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    try:
        found = client.get(_PATH, list[LeaseReport])
    except click.ClickException:
        return []  # a completion cannot report errors
    return [CompletionItem(each.name) for each in found if each.name.startswith(typed)]


@click.command()
@click.option("--for", "seconds", type=TIME, help="How long, such as 2h.")
@click.option("--name", help="A name for the lease; a new lease with the same name replaces it.")
@click.option("--list", "show", is_flag=True, help="List the leases.")
@click.option("--release", metavar="NAME", shell_complete=_held, help="Release the lease NAME.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def awake(
    seconds: float | None,
    name: str | None,
    show: bool,
    release: str | None,
    quiet: bool,
    command: tuple[str, ...],
) -> None:
    """Hold the machine awake: for a time, or while COMMAND runs (write -- before it)."""
    if sum((seconds is not None, bool(command), show, release is not None)) != 1:
        raise click.UsageError("give one of --for TIME, -- COMMAND, --list, --release NAME")
    if seconds is not None:
        said = _hold(seconds, name or "by-hand")
    elif command:
        _run(command, name)
    elif release is not None:
        client.ask("DELETE", f"{_PATH}?name={client.quoted(release)}", list[LeaseReport])
        said = f"{release}: released"
    else:
        said, quiet = _listing(), False
    if not quiet:
        click.echo(said)


@click.command()
@click.option("--now", is_flag=True, help="At once, without a warning.")
def sleep(now: bool) -> None:
    """Put the machine to sleep, whatever is active; a login cancels it."""
    client.ask("POST", "/v1/sleep", SleepOrder, SleepOrder(now=now))
    click.echo("going to sleep" + ("" if now else " after a warning: swarm-agent why says when"))


def _hold(seconds: float, name: str) -> str:
    """Hold the machine awake for a time; returns the text for the user."""
    lease = client.ask("POST", _PATH, LeaseReport, LeaseOrder(name, seconds))
    capped = " (the longest that SWARM_LEASE_MAX allows)" if lease.capped else ""
    # The remaining time is already a moment less than the requested time.
    return f"{lease.name}: awake for {words.duration(round(lease.seconds))}{capped}"


def _run(command: Sequence[str], name: str | None) -> NoReturn:
    """Execute the command in this process; it holds the machine awake while it runs."""
    program = os.path.basename(command[0])
    # Any program name must yield a valid lease name.
    plain = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in program)
    order = LeaseOrder(name or f"{plain[:40]}-{os.getpid()}", while_running=True)
    client.ask("POST", _PATH, LeaseReport, order)
    try:
        os.execvp(command[0], list(command))  # noqa: S606  # the command is the user's own
    except OSError as error:
        click.echo(f"swarm-agent: cannot run {command[0]}: {error.strerror}", err=True)
        sys.exit(exit_status_of(error))


def _listing() -> str:
    """The active leases, as a table."""
    leases = client.get(_PATH, list[LeaseReport])
    if not leases:
        return "nothing holds the machine awake"
    rows = [
        (
            lease.name,
            words.duration(lease.seconds),
            lease.because or ("" if lease.pid is None else f"pid {lease.pid} runs"),
        )
        for lease in leases
    ]
    return table(("lease", "for at most", "while"), rows)
