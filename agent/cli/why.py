"""`swarm-agent why`: the table of signals, and what follows from them."""

from collections.abc import Iterator

from agent import words
from agent.observe.reports import IdleReport, SignalReport


def show(report: IdleReport) -> str:
    """The table and the sentence below it."""
    rows = [row for signal in report.signals for row in _rows(signal)]
    head = ("signal", "last active", "because of", "counts")
    return f"{words.table(head, rows)}\n\n{_sentence(report)}"


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
    awake = f"awake for {words.duration(report.awake)}; "
    if report.sleeps_in is None:
        mode = " (SWARM_SLEEP_MODE is off)" if report.mode == "off" else ""
        return f"{awake}does not sleep by itself{mode}"
    if report.state == "awake":
        return f"{awake}sleeps in {words.duration(report.sleeps_in)} unless something happens"
    return (
        f"{awake}sleeps in {words.duration(report.sleeps_in)}, {report.because}; "
        "swarm-agent awake --for 2h keeps it awake"
    )
