"""Deployed, use and cost of machines, without waking any."""

import re
import time
from contextlib import suppress
from functools import cache

import msgspec

from agent import safe, words
from agent.platform import prices
from deploy import sizes
from deploy.swarm import agents, life, logs
from deploy.swarm.fly import Fly
from deploy.swarm.flyerrors import FlyError
from deploy.swarm.place import Deployed, Place
from deploy.swarm.records import Event, ListedMachine

AGAIN_AND_AGAIN = 4
"""From so many wake-ups without a login on, they are reported."""


class Row(msgspec.Struct, frozen=True):
    """A machine in the list."""

    name: str
    state: str
    region: str = ""
    size: str = ""
    seen: float = 0.0
    cost: str = ""
    parked: bool = False
    problem: str = ""
    agents: str = ""


class Report(msgspec.Struct, frozen=True):
    """The report of `swarm status --json`."""

    row: Row
    agent: msgspec.Raw
    notes: list[str]


def row(where: Place, machine: ListedMachine | None) -> Row:
    """A machine in the list."""
    state = where.state()
    said = "no machine"
    if machine is not None:
        said = machine.says
    return Row(
        name=where.name,
        state=said,
        region=machine.region if machine else state.region,
        size=f"{state.size}, {state.memory_gb} GB",
        seen=state.seen,
        cost=last_cost(state.usage),
        parked=state.parked,
        agents=agents.summary(agents.last_seen(state), time.time()),
        problem="" if machine is None or machine.reachable else machine.host_status,
    )


def text(where: Place, fly: Fly) -> str:
    """Deployed, sessions and cost of a machine, as a person reads it."""
    return text_of(where, fly, fly.machine(where.name))


def text_of(where: Place, fly: Fly, machine: ListedMachine | None) -> str:
    """The same for a machine that the platform was asked about already."""
    name = where.name
    if machine is None:
        return f"{name}: no machine; swarm up {name}"
    size = about_size(where.state())
    lines = [f"{name} is {machine.says} in {machine.region}; {size}"]
    if not machine.reachable:
        lines.append(life.unreachable(name, machine))
    elif machine.awake:
        try:
            lines.append(fly.told(name, machine, f"{life.AGENT} status", 20).rstrip())
            note_usage(where, fly, machine)
        except FlyError as error:
            lines.append(f"its agent does not answer: {str(error).splitlines()[0]}")
    lines += notes(machine)
    if _woken(machine.events):
        lines += _wakers(name, fly)
    lines.append(_cost(where.state()))
    return "\n".join(filter(None, lines))


def report(where: Place, fly: Fly, machine: ListedMachine | None) -> Report:
    """The same for programs; `agent` is the output of `swarm-agent status --json`, or null."""
    said = msgspec.Raw(b"null")
    if machine is not None and machine.awake and machine.reachable:
        # Without an answer it stays null.
        with suppress(FlyError, msgspec.DecodeError):
            told = fly.told(where.name, machine, f"{life.AGENT} status --json", 20)
            msgspec.json.decode(told)
            said = msgspec.Raw(told.encode())
    found = notes(machine) if machine is not None else []
    return Report(row(where, machine), said, found)


def notes(machine: ListedMachine) -> list[str]:
    """Remarks about its recent events: a crash, or wake-ups without a login."""
    found = []
    ends = [each for each in machine.events if each.type == "exit"]
    if ends and (event := ends[0].request) and event.exit_event is not None:
        ended = event.exit_event
        if ended.oom_killed:
            found.append("its last run ran out of memory: a larger --memory helps")
        elif ended.exit_code:
            found.append(f"its last run ended with status {ended.exit_code}")
    if woken := _woken(machine.events):
        found.append(
            f"it was woken {words.plural(woken, 'time')} lately, and soon slept again: "
            "swarm sleep --stay parks it"
        )
    return found


def _wakers(name: str, fly: Fly) -> list[str]:
    """The clients that woke it without a login, as far back as its log goes."""
    try:
        said = fly.do("logs", "--app", name, "--no-tail", why="reads its log")
    except FlyError:
        return []
    found = logs.wakers(said.splitlines())[:3]
    return [
        f"  {client} woke it {words.plural(times, 'time')} without a login"
        for client, times in found
    ]


def _woken(events: list[Event]) -> int:
    """Starts that ended within ten minutes; 0 if there are few."""
    short, started = 0, 0
    for event in reversed(events):
        if event.type == "start":
            started = event.timestamp
        elif event.type in ("exit", "suspend") and started:
            short += event.timestamp - started < 600_000
            started = 0
    return short if short >= AGAIN_AND_AGAIN else 0


def note_usage(where: Place, fly: Fly, machine: ListedMachine) -> None:
    """Record the machine's usage report, to show it while it sleeps. Raises `FlyError`."""
    state = where.state()
    state.usage = safe.lines(fly.told(where.name, machine, f"{life.AGENT} usage", 8).rstrip())
    state.seen = time.time()
    where.keep(state)


def last_cost(usage: str) -> str:
    """The cost of the latest month of `swarm-agent usage`: `about USD 1.30 in 2026-11`.

    If the price is unknown, only the time awake; empty without a month.
    """
    lines = usage.splitlines()
    head = next((at for at, line in enumerate(lines) if line.startswith("month")), len(lines))
    columns = [re.split(r" {2,}", line.strip()) for line in lines[head : head + 2]]
    match columns:
        case [[_, _, about], [month, _, cost]]:
            return f"{about} {cost} in {month}"
        case [[_, _], [month, awake]]:
            return f"awake for {awake} in {month}"
        case _:
            return ""


def _cost(state: Deployed) -> str:
    cost = last_cost(state.usage)
    return f"cost so far, as of {_when(state.seen)}: {cost}" if cost else ""


def _when(at: float) -> str:
    return time.strftime("%a %d %b %H:%M", time.localtime(at))


@cache
def _prices() -> prices.Prices:
    return prices.load("")


def about_size(state: Deployed) -> str:
    """A size in words: how it sleeps, and what an hour costs."""
    memory = state.memory_gb * 1024
    how = "suspends, and resumes at once" if memory <= sizes.SUSPEND_LIMIT else "stops and starts"
    said = f"{state.size} with {state.memory_gb} GB: {how}"
    preset = sizes.PRESETS.get(state.size)
    if preset is None:
        return said
    try:
        hour = _prices().hour(prices.Size(preset.cpu_kind, preset.cpus, memory))
    except prices.PriceError:
        return said
    return f"{said}; about ${hour:.4f} an hour awake"
