"""`swarm-agent checkpoint`, `checkpoints`, `diff` and `restore`."""

import os
import time
from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import quote_from_bytes

import click
import msgspec
from click.shell_completion import CompletionItem

from agent import words
from agent.cli import client
from agent.cli.options import json_option
from agent.cli.tables import table, wrapped
from agent.observe.checkpoint_reports import (
    ChangesReport,
    CheckpointReport,
    CheckpointsReport,
    DeleteOrder,
    DiffOrder,
    JobReport,
    MakeOrder,
    RestoredReport,
    RestoreOrder,
)

T = TypeVar("T")

PATH = "/v1/checkpoints"

_WORDS = {"+": "new", "-": "gone", "M": "changed", "U": "mode or time", "T": "other type"}


def _known(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    try:
        found = client.get(PATH, CheckpointsReport)
    except click.ClickException:
        return []  # a completion cannot report errors
    return [
        CompletionItem(each.id, help=f"{each.cause} {each.note}".strip())
        for each in reversed(found.checkpoints)
        if each.id.startswith(typed)
    ]


@click.command()
@json_option
@click.option("--note", default="", metavar="TEXT", help="A note to recognise it by.")
def checkpoint(as_json: bool, note: str) -> None:
    """Save the present state of the volume, to restore it later."""
    made = _done("POST", PATH, CheckpointReport, MakeOrder(note))
    click.echo(client.to_json(made) if as_json else _made(made))


@click.command()
@json_option
@click.option("--away", is_flag=True, help="List the repository away from the machine.")
@click.option("--delete", multiple=True, metavar="ID", help="Delete this one; root only.")
def checkpoints(as_json: bool, away: bool, delete: tuple[str, ...]) -> None:
    """List the checkpoints of the volume: when, why, how much, and what changed."""
    if delete:
        gone = _done("POST", f"{PATH}/delete", list[str], DeleteOrder(list(delete)))
        click.echo(f"deleted: {', '.join(each[:8] for each in gone)}")
        return
    if away:
        report = _done("GET", f"{PATH}?away=", CheckpointsReport)
    else:
        report = client.get(PATH, CheckpointsReport)
    click.echo(client.to_json(report) if as_json else "\n".join(_lines(report)))


@click.command()
@json_option
@click.argument("checkpoint", default="latest", metavar="[ID]", shell_complete=_known)
@click.argument("path", required=False)
@click.option("--with", "second", default="", metavar="ID", help="Compare with this one instead.")
def diff(as_json: bool, checkpoint: str, path: str | None, second: str) -> None:
    """Show what changed since a checkpoint, the latest by default."""
    order = DiffOrder(checkpoint, second, "" if path is None else _encoded(path))
    report = _done("POST", f"{PATH}/diff", ChangesReport, order)
    click.echo(client.to_json(report) if as_json else _changes(report))


@click.command()
@json_option
@click.argument("checkpoint", metavar="ID", shell_complete=_known)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--to", metavar="FOLDER", help="Into an empty or new folder, not in place.")
@click.option("--away", is_flag=True, help="From the repository away from the machine.")
def restore(
    as_json: bool, checkpoint: str, paths: tuple[str, ...], to: str | None, away: bool
) -> None:
    """Restore a checkpoint: all of it, or some paths.

    A restore in place first makes a checkpoint of the present, so that you can undo it. ID may
    be `latest`, or the beginning of an id.
    """
    target = "" if to is None else _encoded(to)
    order = RestoreOrder(checkpoint, [_encoded(path) for path in paths], target, away)
    report = _done("POST", f"{PATH}/restore", RestoredReport, order)
    click.echo(client.to_json(report) if as_json else _restored(report))
    raise SystemExit(1 if report.failures else 0)


def _changes(report: ChangesReport) -> str:
    """The differences, path by path."""
    if not report.count:
        return f"nothing changed since {report.first.id}"
    rows = [(_WORDS.get(each.modifier[:1], "?"), each.path) for each in report.changes]
    more = report.count - len(rows)
    rest = f"\nand {more} more" if more else ""
    return table(("", f"since {report.first.id}"), rows) + rest


def _restored(report: RestoredReport) -> str:
    """The result for the user."""
    said = f"{report.checkpoint.id}: {words.plural(report.placed, 'entry', 'entries')} restored"
    said += f", {report.removed} removed" if report.removed else ""
    if report.before is not None:
        said += f"\nto undo this: swarm-agent restore {report.before.id}"
    for problem in report.problems:
        said += f"\nnot restored: {problem}"
    more = report.failures - len(report.problems)
    return said + (f"\nnot restored: {more} more" if more > 0 else "")


def _made(checkpoint: CheckpointReport) -> str:
    """One line about a new checkpoint."""
    size = words.size(checkpoint.bytes or 0)
    files = words.plural(checkpoint.files or 0, "file")
    said = f"{checkpoint.id}: {files}, {size} in {checkpoint.seconds or 0:.1f} s"
    said += f", {words.size(checkpoint.added or 0)} more on the volume"
    unread = words.plural(checkpoint.unread, "file")
    return said + (f"\nleft out, because unreadable: {unread}" if checkpoint.unread else "")


def _lines(report: CheckpointsReport) -> Iterator[str]:
    if report.checkpoints:
        head = ("checkpoint", "made (UTC)", "why", "files", "size", "new", "changed")
        rows = [_row(each) for each in reversed(report.checkpoints)]
        yield table(head, rows)
        yield f"{words.size(report.size)} on the volume"
    elif report.on:
        yield "there is no checkpoint yet: swarm-agent checkpoint makes one"
    else:
        yield "checkpoints are switched off (SWARM_CHECKPOINTS)"
    if report.running:
        yield wrapped(f"now: {report.running}")
    if report.problem:
        yield wrapped(f"problem: {report.problem}")
    if report.away:
        pending = "not all copied yet" if report.upload_pending else "all copied"
        pending = "being copied" if report.uploading else pending
        yield wrapped(f"away from the machine ({report.away}): {pending}")
    if report.upload_problem:
        yield wrapped(f"problem with copying: {report.upload_problem}")


def _row(entry: CheckpointReport) -> tuple[str, ...]:
    return (
        entry.id,
        time.strftime("%d %b %H:%M", time.gmtime(entry.at)),
        ": ".join(filter(None, (entry.cause, entry.note))),
        _number(entry.files),
        "" if entry.bytes is None else words.size(entry.bytes),
        _number(entry.new),
        _number(entry.changed),
    )


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _encoded(path: str) -> str:
    """Absolute, with its folders' links resolved: the path may reach the volume through links."""
    whole = os.path.abspath(os.fsencode(path))
    folder, name = os.path.split(whole)
    return quote_from_bytes(os.path.join(os.path.realpath(folder), name))


def _done(method: str, path: str, shape: type[T], order: object = None) -> T:
    """Order a long-running job and wait for its result."""
    job = client.ask(method, path, JobReport, order)
    while not job.done:
        job = client.get(f"{PATH}/jobs/{job.job}?wait=8", JobReport)
    return msgspec.convert(job.result, shape)
