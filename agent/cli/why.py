"""`swarm-agent why`: the table of signals, and when the machine sleeps."""

from collections.abc import Iterator

import click

from agent import words
from agent.cli import client
from agent.cli.options import json_option
from agent.cli.tables import table, wrapped
from agent.observe.reports import IdleReport, SignalReport


@click.command()
@json_option
def why(as_json: bool) -> None:
    """Show what keeps the machine awake, what does not count, and when it sleeps."""
    report = client.get("/v1/idle", IdleReport)
    click.echo(client.to_json(report) if as_json else _show(report))


def _show(report: IdleReport) -> str:
    rows = [row for signal in report.signals for row in _rows(signal)]
    head = ("signal", "last active", "because of", "counts")
    return f"{table(head, rows)}\n\n{_sentence(report)}"


def _rows(signal: SignalReport) -> Iterator[tuple[str, str, str, str]]:
    if not signal.on:
        yield signal.signal, "-", "switched off", "no"
        return
    if signal.idle is None:
        yield signal.signal, "not yet", "", ""
    else:
        yield signal.signal, f"{words.duration(signal.idle)} ago", signal.because, "yes"
    for sign in signal.seen:
        if sign.says != signal.because:
            yield "", "seen now", sign.says, "yes" if sign.counts else "no"


def _sentence(report: IdleReport) -> str:
    more = "" if report.state == "awake" else "; swarm-agent awake --for 2h keeps it awake"
    return wrapped(f"awake for {words.duration(report.awake)}; {outlook(report)}{more}", "")


def outlook(report: IdleReport) -> str:
    """When the machine sleeps, or what keeps it awake."""
    if report.state != "awake":
        return f"sleeps in {words.duration(report.sleeps_in or 0)}: {report.because}"
    if report.leases:
        first, others = report.leases[0], len(report.leases) - 1
        more = f" and {words.plural(others, 'other lease')}" if others else ""
        end = f"for {words.duration(first.seconds)}"
        if first.pid is not None:
            end = f"while pid {first.pid} runs, {words.duration(first.seconds)} at most"
        return f"held awake by {first.name}{more} {end}"
    if report.sleeps_in is None:
        return "does not sleep by itself" + (
            " (SWARM_SLEEP_MODE is off)" if report.mode == "off" else ""
        )
    return f"sleeps in {words.duration(report.sleeps_in)} unless something happens"
