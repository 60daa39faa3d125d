"""`swarm-agent awake`: taking, listing and releasing leases."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn
from urllib.parse import quote

import click

from agent import words
from agent.cli import client
from agent.init.foreground import exit_status_of
from agent.observe.reports import LeaseOrder, LeaseReport
from agent.settings.units import positive_duration

_PATH = "/v1/leases"


def hold(time: str, name: str) -> str:
    """Hold the machine awake for a time; what to tell the user."""
    try:
        seconds = positive_duration(time)
    except ValueError as error:
        raise click.BadParameter(f"{time!r}: expected {error}", param_hint="--for") from error
    lease = client.ask("POST", _PATH, LeaseReport, LeaseOrder(name, seconds))
    capped = " (the longest that SWARM_LEASE_MAX allows)" if lease.seconds < seconds - 1 else ""
    # What is left is a moment less than what was asked for.
    return f"{lease.name}: awake for {words.duration(round(lease.seconds))}{capped}"


def run(command: Sequence[str], name: str | None) -> NoReturn:
    """Become the command, which holds the machine awake by running: its status is its own."""
    program = os.path.basename(command[0])
    # Any name that a program can have must make one for a lease.
    plain = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in program)
    order = LeaseOrder(name or f"{plain[:40]}-{os.getpid()}", while_running=True)
    client.ask("POST", _PATH, LeaseReport, order)
    try:
        os.execvp(command[0], list(command))  # noqa: S606  # the command is the user's own
    except OSError as error:
        click.echo(f"swarm-agent: cannot run {command[0]}: {error.strerror}", err=True)
        sys.exit(exit_status_of(error))


def release(name: str) -> str:
    """End a lease; what to tell the user."""
    client.ask("DELETE", f"{_PATH}?name={quote(name)}", list[LeaseReport])
    return f"{name}: released"


def listing() -> str:
    """The leases that hold, as a table."""
    leases = client.get(_PATH, list[LeaseReport])
    if not leases:
        return "nothing holds the machine awake"
    rows = [
        (
            lease.name,
            words.duration(lease.seconds),
            "" if lease.pid is None else f"pid {lease.pid} runs",
        )
        for lease in leases
    ]
    return words.table(("lease", "for at most", "while"), rows)
