"""What the agent hands to itself when it re-executes in place: same process id, same listener.

After an error that nobody foresaw, or `swarm-agent reload`, the process becomes a new agent by
execve(2). Its children stay its children and its descriptors keep their numbers; what else the next
one must know is pickled into a file in memory, which nobody but root can open. Nothing here is read
on the way from exec to the first banner of an ordinary boot.
"""

import os
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from agent import __version__

if TYPE_CHECKING:
    from signal import Signals

    from agent.access.authlog import Step
    from agent.access.client import Client
    from agent.access.jail import Ban
    from agent.events import Event
    from agent.health import Reexecutions
    from agent.idle.policy import Activity
    from agent.network import Network
    from agent.services.load import Plan
    from agent.services.output import Stream
    from agent.settings import Settings
    from agent.state.database import Change
    from agent.state.life import LastWord
    from agent.stop import Ending


@dataclass(frozen=True, slots=True)
class HeldStop:
    """How the machine is to end, the stop signal that came, and whether a second one did."""

    ending: "Ending | None"
    signal: "Signals | None"
    hurry: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLogin:
    """The session of a connection that has logged in."""

    user: str
    key: str
    fingerprint: str
    started: float
    started_at: float
    terminals: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldConnection:
    """A connection and its sshd. `socket`, `errors` and `config` are descriptors (-1: closed)."""

    id: str
    client: "Client"
    pid: int
    socket: int
    errors: int
    config: int
    steps: frozenset["Step"]
    user: str
    last_line: str
    started: float
    was_cut: bool
    login: HeldLogin | None


@dataclass(frozen=True, slots=True)
class HeldHeader:
    """A connection that has sent this much of its PROXY header."""

    socket: int
    data: bytes


@dataclass(frozen=True, slots=True)
class HeldJail:
    """Bans, strikes (time and weight) and logins of the jail, on its clock."""

    bans: tuple["Ban", ...]
    strikes: Mapping["Network", list[tuple[float, float]]]
    logins: Mapping["Network", float]
    strikes_given: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldGate:
    """Everything at the gate. `listeners`: setting → descriptor, with the place it listens at."""

    arrivals: int
    listeners: Mapping[str, tuple[str, int]]
    connections: tuple[HeldConnection, ...]
    headers: tuple[HeldHeader, ...]
    jail: HeldJail

    @property
    def descriptors(self) -> list[int]:
        """All that must stay open."""
        found = [descriptor for _, descriptor in self.listeners.values()]
        for each in self.connections:
            found += [each.socket, each.errors, each.config]
        return found + [header.socket for header in self.headers]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldProcess:
    """A service's process. `leader_started` is in clock ticks since the kernel's boot."""

    pid: int
    streams: Mapping[str, "Stream"]
    notify: int
    leader_started: int
    ready_since: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldService:
    """Where a service is in its life. `wanted`: it has a task, which was not told to end."""

    state: str
    detail: str
    since: float
    started_at: float | None
    starts: int
    restarts: int
    said: tuple[tuple[float, str, str], ...]
    wanted: bool
    process: HeldProcess | None


@dataclass(frozen=True, slots=True)
class HeldServices:
    """The plan in force, and what runs of it."""

    plan: "Plan"
    services: Mapping[str, HeldService]

    @property
    def processes(self) -> list[HeldProcess]:
        """Those that run."""
        return [each.process for each in self.services.values() if each.process is not None]

    @property
    def descriptors(self) -> list[int]:
        """All that must stay open."""
        found = []
        for process in self.processes:
            found += [stream.descriptor for stream in process.streams.values()]
            found.append(process.notify)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldIdle:
    """What the watch knows of this time awake, and the leases as the page has them."""

    before: "LastWord | None"
    awake_since: float
    woke: float
    arrivals: int
    logins: int
    judged: bool
    latest: "Activity"
    ordered: float | None
    at_once: bool
    warned: float | None
    month_awake: float
    leases: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldParts:
    """What the parts know that were made. `unwritten` are changes that the volume has not taken."""

    idle: HeldIdle | None
    services: HeldServices | None
    unwritten: tuple["Change", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """All of it. What is None was not made yet, or is there for nobody.

    `missed` are events that the memory has not heard any more.
    """

    past: "Reexecutions"
    settings: "Settings"
    stop: HeldStop
    command: int | None
    command_status: int | None
    missed: tuple["Event", ...]
    gate: HeldGate
    egress: Mapping["Network", float] | None
    parts: HeldParts

    @property
    def pids(self) -> list[int]:
        """Our children that somebody waits for."""
        found = [each.pid for each in self.gate.connections]
        if self.parts.services is not None:
            found += [process.pid for process in self.parts.services.processes]
        return found if self.command is None else [*found, self.command]

    @property
    def descriptors(self) -> list[int]:
        """All that must stay open."""
        found = self.gate.descriptors
        if self.parts.services is not None:
            found += self.parts.services.descriptors
        return [descriptor for descriptor in found if descriptor >= 0]


def re_execute(handover: Handover, environ: Mapping[str, str], variable: str) -> NoReturn:
    """Become a new agent, which finds the handover by `variable`. Raises `OSError`."""
    file = os.memfd_create("handover")
    with open(file, "wb", closefd=False) as out:
        pickle.dump((__version__, handover), out)
    os.lseek(file, 0, os.SEEK_SET)
    for descriptor in (file, *handover.descriptors):
        os.set_inheritable(descriptor, True)
    # The interpreter by the name that it was called by: a virtual environment is found by that.
    argv = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, argv, {**environ, variable: str(file)})  # noqa: S606  # ourselves


def take(file: int) -> Handover | None:
    """What the agent before has handed over; None where it is of another version.

    Then its children are ours, and we do not know them.
    """
    try:
        with open(file, "rb") as content:
            version, handover = pickle.load(content)  # noqa: S301  # nobody else can write it
    except Exception:
        version = handover = None
    if version != __version__ or not isinstance(handover, Handover):
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        return None
    for descriptor in handover.descriptors:
        os.set_inheritable(descriptor, False)
    return handover
