"""`swarm-agent sessions`, `kick`, `history`: who is logged in, and who was."""

import time
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from agent import words
from agent.cli import client
from agent.cli.options import TIME, json_option
from agent.cli.tables import table
from agent.observe.reports import HistoryReport, Kicked, SessionReport

PATH = "/v1/sessions"


def _open(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    try:
        found = client.get(PATH, list[SessionReport])
    except click.ClickException:
        return []  # a completion cannot report errors
    return [
        CompletionItem(each.id, help=f"{each.user} from {each.client}")
        for each in found
        if each.id.startswith(typed)
    ]


@click.command()
@json_option
def sessions(as_json: bool) -> None:
    """List the open SSH sessions."""
    report = client.get(PATH, list[SessionReport])
    if as_json:
        click.echo(client.to_json(report))
    else:
        click.echo(sessions_table(report, time.time()) if report else "nobody is logged in")


@click.command()
@click.argument("session", shell_complete=_open)
def kick(session: str) -> None:
    """End an SSH session; `swarm-agent sessions` lists them."""
    done = client.ask("DELETE", f"{PATH}?id={client.quoted(session)}", Kicked)
    click.echo(f"session {done.id} ends")


@click.command()
@json_option
@click.option("--since", type=TIME, default="7d", help="How far back, such as 12h or 30d.  [7d]")
def history(as_json: bool, since: float) -> None:
    """List past sessions: who, when, from where, and why each ended."""
    entries = client.get(f"/v1/history?since={time.time() - since:.0f}", list[HistoryReport])
    if as_json:
        click.echo(client.to_json(entries))
    else:
        still = {each.id for each in client.get(PATH, list[SessionReport])}
        click.echo(_history_table(entries, still) if entries else "nobody was logged in")


def sessions_table(found: Sequence[SessionReport], now: float) -> str:
    """The open sessions."""
    rows = [
        (
            entry.id,
            entry.user,
            entry.key,
            entry.client,
            words.duration(now - entry.since),
            words.duration(entry.idle),
            words.size(entry.bytes_in),
            words.size(entry.bytes_out),
        )
        for entry in found
    ]
    return table(("session", "user", "key", "from", "open for", "idle", "in", "out"), rows)


def _history_table(entries: Sequence[HistoryReport], still: set[str]) -> str:
    """Past sessions, latest first; `still` has the open ones."""
    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.opened)),
            "" if entry.closed is None else words.duration(entry.closed - entry.opened),
            entry.user,
            entry.key,
            entry.client,
            words.size(entry.bytes_in),
            words.size(entry.bytes_out),
            _end(entry, still),
        )
        for entry in entries
    ]
    head = ("login (UTC)", "open for", "user", "key", "from", "in", "out", "ended")
    return table(head, rows)


def _end(entry: HistoryReport, still: set[str]) -> str:
    if entry.closed is not None:
        return entry.reason
    return "still open" if entry.id in still else "the machine ended unexpectedly"
