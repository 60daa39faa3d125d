"""The coding agents of machines, as a laptop sees them. Looking does not wake a machine."""

import shlex
import time

import msgspec

from agent import words
from agent.cli.agents import agents_table, says
from agent.observe.reports import CodingAgentReport
from deploy.swarm import life
from deploy.swarm.fly import Fly
from deploy.swarm.place import Deployed, Place


class AttachError(Exception):
    """There is no window to attach to; the message says why."""


class Seen(msgspec.Struct, frozen=True):
    """The coding agents of a machine, as reported at `at` (Unix time; 0: never asked)."""

    at: float
    agents: list[CodingAgentReport]

    @property
    def live(self) -> list[CodingAgentReport]:
        """The agents that have not ended, the most urgent first."""
        return [each for each in self.agents if each.state != "ended"]


def look(where: Place, fly: Fly) -> Seen:
    """Their states; for a machine that is not awake, the states when it was last asked.

    The request goes through the platform and is not a login. Raises `FlyError`.
    """
    machine = fly.machine(where.name)
    if machine is None or not machine.awake or not machine.reachable:
        return last_seen(where.state())
    told = fly.told(where.name, machine, f"{life.AGENT} agents --json", 20)
    seen = Seen(time.time(), msgspec.json.decode(told, type=list[CodingAgentReport]))
    state = where.state()
    state.agents, state.agents_at = msgspec.json.encode(seen.agents).decode(), seen.at
    where.keep(state)
    return seen


def last_seen(state: Deployed) -> Seen:
    """What this laptop remembers, without asking the platform."""
    if not state.agents:
        return Seen(0.0, [])
    return Seen(state.agents_at, msgspec.json.decode(state.agents, type=list[CodingAgentReport]))


def text(seen: Seen, now: float) -> str:
    """A table, with its age if it is old."""
    if not seen.at:
        return "not asked yet while it was awake"
    age = now - seen.at
    old = "" if age < 60 else f"as of {words.duration(age)} ago:\n"
    return old + agents_table(seen.agents, seen.at)


def summary(seen: Seen, now: float) -> str:
    """A few words for the list of machines: the most urgent one, how many more, and how old."""
    if not seen.live:
        return ""
    first = seen.live[0]
    rest = f" and {len(seen.live) - 1} more" if len(seen.live) > 1 else ""
    age = now - seen.at
    old = "" if age < 60 else f", {words.duration(age)} ago"
    return f"{first.name} {says(first)}{rest}{old}"


def attach_script(seen: Seen, agent: str) -> str:
    """The shell command that attaches to the window of `agent`, or of the one waiting longest.

    Raises `AttachError`.
    """
    found = [each for each in seen.live if agent in ("", each.name)]
    if not found:
        raise AttachError(f"there is no coding agent {agent}".rstrip() + " there now: swarm agents")
    chosen = next((each for each in found if each.pane), None)
    if chosen is None:
        names = ", ".join(each.name for each in found)
        raise AttachError(f"{names}: not in a tmux window, so nobody else can attach")
    tmux, pane = f"tmux -S {shlex.quote(chosen.tmux)}", shlex.quote(chosen.pane)
    return (
        f"{tmux} select-window -t {pane} && {tmux} select-pane -t {pane} && "
        f"exec {tmux} attach-session -t {pane}"
    )
