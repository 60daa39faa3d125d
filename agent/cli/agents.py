"""`swarm-agent agents`, `agent` and `hook`: list the coding agents, and report their states."""

import os
import time
from collections.abc import Sequence

import click

from agent import words
from agent.cli import client
from agent.cli.options import TIME, json_option, show, watch_option
from agent.cli.tables import table
from agent.crew import tell
from agent.observe.reports import CodingAgentReport, CodingHistoryReport

_PATH = "/v1/agents"
_HEAD = ("agent", "state", "for", "because", "folder", "where", "prompts", "calls")


@click.command()
@json_option
@watch_option
@click.option("--since", type=TIME, help="List what each did instead, such as in the last 12h.")
def agents(as_json: bool, seconds: float | None, since: float | None) -> None:
    """List the coding agents: what each does, for how long, and where."""

    def text() -> str:
        if since is not None:
            path = f"{_PATH}/history?since={time.time() - since:.0f}"
            entries = client.get(path, list[CodingHistoryReport])
            return client.to_json(entries) if as_json else _history_table(entries)
        report = client.get(_PATH, list[CodingAgentReport])
        return client.to_json(report) if as_json else agents_table(report, time.time())

    show(text, seconds)


@click.command()
@click.argument("word", type=click.Choice(["working", "waiting", "done"]))
@click.option("--name", default="mine", help="Its name.  [mine]")
@click.option("--note", default="", help="A few words that agents shows.")
def agent(word: str, name: str, note: str) -> None:
    """Report the state of a coding agent without hooks: the process that runs this command."""
    report = {"tool": tell.OWN_WORD, "event": word, "session": name, "note": note}
    try:
        tell.send({**report, "folder": os.getcwd()}, os.getppid(), os.environ)
    except OSError as error:
        raise click.ClickException(
            f"nothing takes reports here ({error.strerror or error}): is swarm-agent running?"
        ) from error


@click.command()
@click.argument("tool", type=click.Choice(["claude", "codex", "gemini", "opencode"]))
@click.argument("payload", required=False)
def hook(tool: str, payload: str | None) -> None:
    """Forward what a hook of TOOL writes to stdin; prints nothing and always exits with 0."""
    tell.main([tool] if payload is None else [tool, payload])


def agents_table(found: list[CodingAgentReport], now: float) -> str:
    """The state of each agent, for how long and where; ended agents last."""
    if not found:
        return "no coding agent has reported yet"
    return table(_HEAD, [row for each in found for row in _rows(each, now)])


def _history_table(found: Sequence[CodingHistoryReport]) -> str:
    if not found:
        return "no coding agent has done anything"
    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each.at)),
            each.agent,
            says(each),
            each.because,
            f"{each.previous} for {words.duration(each.seconds)}" if each.previous else "",
            each.folder,
        )
        for each in found
    ]
    return table(("when (UTC)", "agent", "state", "because", "before", "folder"), rows)


def says(found: CodingAgentReport | CodingHistoryReport) -> str:
    """Its state in a few words."""
    return f"waits for {found.need}" if found.need else found.state


def _rows(found: CodingAgentReport, now: float) -> list[tuple[str, ...]]:
    row = (
        found.name,
        says(found),
        words.duration(now - found.since),
        found.note or found.because,
        found.folder,
        found.place,
        str(found.prompts),
        str(found.tool_calls),
    )
    below = [("", sub.state, "", f"subagent {sub.id[:8]}", *[""] * 4) for sub in found.subagents]
    return [row, *below]
