"""The event vocabulary: everything the agent says has one of these types.

An event is a fact, named once and for ever. `agent/bus.py` hands them out.
"""

import time
from typing import Any, ClassVar, dataclass_transform, get_origin


@dataclass_transform(kw_only_default=True, frozen_default=True)
class _Record:
    """What a type checker takes for a frozen dataclass.

    It is none: that decorator writes and compiles methods for every class, which for all events
    takes a quarter of the time from exec to the banner.
    """

    fields: ClassVar[tuple[str, ...]] = ()
    """Its own, in the order in which people look for them."""

    def __init_subclass__(cls) -> None:
        kinds: dict[str, object] = cls.__annotations__
        cls.fields = tuple(name for name in kinds if get_origin(kinds[name]) is not ClassVar)

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.fields)
        return f"{type(self).__name__}({said})"


class Event(_Record):
    """The base of all events; `at` is the wall clock at which it happened, in seconds.

    One that lacks a field, or has one too many, cannot be made: `TypeError`.
    """

    name: ClassVar[str]
    level: ClassVar[str] = "info"
    summed: ClassVar[bool] = False
    """An attacker can make any number of these: the log sums floods of them up."""
    bulk: ClassVar[bool] = False
    """The account can make any number of these, and all are written as long as there is room."""
    at: float = 0.0

    def __init__(self, **values: Any) -> None:
        super().__init__(**{"at": time.time()} | values)
        if len(self.__dict__) != len(self.fields) + 1 or not self.__dict__.keys() >= {*self.fields}:
            given = ", ".join(sorted(values))
            raise TypeError(f"{type(self).__name__} has {', '.join(self.fields)}; given: {given}")


class BootPhase(Event):
    """A phase of the start-up ended; `seconds` is how long it took."""

    name: ClassVar[str] = "boot.phase"
    phase: str
    seconds: float


class ListenerOpened(Event):
    """SSH can be reached from now on; `seconds` counts from the start of the process."""

    name: ClassVar[str] = "boot.listening"
    listen: str
    user: str
    seconds: float


class BootFailed(Event):
    """The agent cannot serve SSH and ends."""

    name: ClassVar[str] = "boot.failed"
    level: ClassVar[str] = "error"
    problem: str


class AgentFailed(Event):
    """An error that nobody foresaw, at the top of the agent, which re-executes in place."""

    name: ClassVar[str] = "agent.failed"
    level: ClassVar[str] = "error"
    problem: str
    where: str


class Reexecuted(Event):
    """The agent has re-executed in place: SSH was open all the time, and what was open is.

    `failures` and `reloads` count how often and why since the machine started.
    """

    name: ClassVar[str] = "agent.reexecuted"
    level: ClassVar[str] = "warning"
    failures: int
    reloads: int
    connections: int
    services: int


class ErrorUnhandled(Event):
    """An unexpected error in a callback; the agent keeps running."""

    name: ClassVar[str] = "agent.error"
    level: ClassVar[str] = "error"
    summed: ClassVar[bool] = True
    problem: str
    where: str


class Trouble(Event):
    """A problem the user should fix; the agent keeps running."""

    name: ClassVar[str] = "agent.problem"
    level: ClassVar[str] = "error"
    part: str
    problem: str


class Notice(Event):
    """A degradation worth knowing about; nothing is broken."""

    name: ClassVar[str] = "agent.notice"
    level: ClassVar[str] = "warning"
    part: str
    notice: str


class PartFailed(Event):
    """A part that SSH does not need crashed; it is started again after `retry_in` seconds."""

    name: ClassVar[str] = "agent.part.failed"
    level: ClassVar[str] = "error"
    part: str
    problem: str
    retry_in: float


class KeyInstalled(Event):
    """An authorised key may log in."""

    name: ClassVar[str] = "ssh.key.installed"
    key: str
    type: str
    fingerprint: str
    source: str


class KeyRemoved(Event):
    """A key is no longer authorised: no new login with it. Its open sessions continue."""

    name: ClassVar[str] = "ssh.key.removed"
    key: str
    fingerprint: str
    source: str


class KeyRefused(Event):
    """A line of the authorised keys is not usable; line 0 is a whole file or folder."""

    name: ClassVar[str] = "ssh.key.refused"
    level: ClassVar[str] = "error"
    source: str
    line: int
    reason: str


class EgressApplied(Event):
    """The egress rules are in force."""

    name: ClassVar[str] = "egress.applied"
    mode: str


class EgressRefused(Event):
    """Connections that the egress rules refused lately: where to, most first, and how many more."""

    name: ClassVar[str] = "egress.refused"
    level: ClassVar[str] = "warning"
    destinations: tuple[str, ...]
    others: int
    packets: int


class EgressUnresolved(Event):
    """Allowed names that have no address now; what they had before is allowed for an hour."""

    name: ClassVar[str] = "egress.unresolved"
    names: tuple[str, ...]


class HomeMoved(Event):
    """What the home had at `path` is on the volume from now on, and linked."""

    name: ClassVar[str] = "home.moved"
    path: str


class HostKey(Event):
    """The machine's host key; `origin` is `restored`, `created` or `ephemeral`."""

    name: ClassVar[str] = "ssh.hostkey"
    type: str
    fingerprint: str
    origin: str


class HostKeyReplaced(Event):
    """A host key on the volume could not be used and was set aside: clients will be warned."""

    name: ClassVar[str] = "ssh.hostkey.replaced"
    level: ClassVar[str] = "error"
    reason: str
    kept_as: str


class ConnectionsRefused(Event):
    """The gate closed connections before any sshd was started for them.

    The first one for a reason is logged at once, with its client; a flood is summed up.
    """

    name: ClassVar[str] = "ssh.connections.refused"
    level: ClassVar[str] = "warning"
    reason: str
    count: int
    client: str
    detail: str


class ConnectionClosed(Event):
    """A connection ended without a login; `verdict` says what it was."""

    name: ClassVar[str] = "ssh.connection.closed"
    summed: ClassVar[bool] = True
    session: str
    client: str
    verdict: str
    user: str
    reason: str
    seconds: float


class ConnectionUnused(Event):
    """A connection ended without a try: a health check or a port scan."""

    name: ClassVar[str] = "ssh.connection.unused"
    level: ClassVar[str] = "debug"
    session: str
    client: str
    seconds: float


class AccountRefused(Event):
    """sshd refuses the login account, whatever the key: nobody is to blame for it. Told once."""

    name: ClassVar[str] = "ssh.account.refused"
    level: ClassVar[str] = "error"
    reason: str


class ClientUnknown(Event):
    """The proxy did not say who is calling; such clients are never banned. Told once."""

    name: ClassVar[str] = "ssh.client.unknown"
    level: ClassVar[str] = "warning"
    proxy: str


class BanStarted(Event):
    """A network stays out for so many seconds; in a dry run it only would."""

    name: ClassVar[str] = "ban.started"
    summed: ClassVar[bool] = True
    level: ClassVar[str] = "warning"
    network: str
    seconds: float
    times: int
    reason: str
    cut: int
    dry_run: bool


class BanLifted(Event):
    """A ban was taken back by hand, or its history is over."""

    name: ClassVar[str] = "ban.lifted"
    summed: ClassVar[bool] = True
    network: str
    reason: str


class StateReplaced(Event):
    """The state database could not be read and was set aside; a new one was begun."""

    name: ClassVar[str] = "state.replaced"
    level: ClassVar[str] = "error"
    reason: str
    kept_as: str


class StateNotKept(Event):
    """Could not write to the volume; this data is lost if the machine stops now."""

    name: ClassVar[str] = "state.not_kept"
    level: ClassVar[str] = "error"
    problem: str


class StateKept(Event):
    """The volume is writable again; pending data was written."""

    name: ClassVar[str] = "state.kept"
    path: str


class ListenerPaused(Event):
    """New connections cannot be taken for the moment (out of descriptors or memory)."""

    name: ClassVar[str] = "ssh.listener.paused"
    summed: ClassVar[bool] = True
    level: ClassVar[str] = "error"
    problem: str
    retry_in: float


class SessionOpened(Event):
    """Somebody logged in."""

    name: ClassVar[str] = "ssh.session.opened"
    session: str
    client: str
    user: str
    key: str
    fingerprint: str
    pid: int


class SessionClosed(Event):
    """A logged-in connection ended. Bytes are as the machine sees them."""

    name: ClassVar[str] = "ssh.session.closed"
    session: str
    client: str
    user: str
    key: str
    fingerprint: str
    seconds: float
    bytes_in: int
    bytes_out: int
    reason: str


class ShellOpened(Event):
    """A login got a shell on a terminal (`pts/0`)."""

    name: ClassVar[str] = "ssh.shell"
    level: ClassVar[str] = "debug"
    session: str
    terminal: str


class SshdSaid(Event):
    """Every line sshd wrote."""

    name: ClassVar[str] = "ssh.sshd"
    level: ClassVar[str] = "debug"
    session: str
    line: str


class CommandStarted(Event):
    """The command given to `run --` was started."""

    name: ClassVar[str] = "command.started"
    command: str
    pid: int


class CommandEnded(Event):
    """The command given to `run --` ended; the container ends with it."""

    name: ClassVar[str] = "command.ended"
    status: int


class StopBegan(Event):
    """The agent stops; all of it takes at most `budget` seconds."""

    name: ClassVar[str] = "agent.stopping"
    reason: str
    sessions: int
    budget: float


class StopForced(Event):
    """Processes were killed because they did not end by themselves."""

    name: ClassVar[str] = "agent.stop.forced"
    level: ClassVar[str] = "warning"
    processes: int
    reason: str


class Stopped(Event):
    """The agent's last event before it exits."""

    name: ClassVar[str] = "agent.stopped"
    reason: str
    seconds: float
    orphans_reaped: int


class SettingsChanged(Event):
    """The settings file changed: `applied` holds from now on, `waiting` after a restart."""

    name: ClassVar[str] = "settings.changed"
    applied: tuple[str, ...]
    waiting: tuple[str, ...]


class CodingAgentChanged(Event):
    """The state of a coding agent changed. `seconds` is how long it was in the previous one.

    `need` is what one that waits needs from a person; `works` that it holds the machine awake.
    """

    name: ClassVar[str] = "coding.state"
    summed: ClassVar[bool] = True
    agent: str
    tool: str
    folder: str
    state: str
    need: str
    because: str
    previous: str
    seconds: float
    works: bool


class CodingTurnBegan(Event):
    """A coding agent begins a turn. `typed`: a person wrote the prompt, not a finished task."""

    name: ClassVar[str] = "coding.turn"
    summed: ClassVar[bool] = True
    agent: str
    tool: str
    folder: str
    session: str
    typed: bool


class NewsSent(Event):
    """A line of SWARM_NOTIFY took a message; `kind` is its scheme, such as `ntfy`."""

    name: ClassVar[str] = "notify.sent"
    line: int
    kind: str


class NewsNotSent(Event):
    """A line of SWARM_NOTIFY did not take a message; it is tried again, and reported once."""

    name: ClassVar[str] = "notify.failed"
    level: ClassVar[str] = "warning"
    line: int
    kind: str
    problem: str


class SettingsRefused(Event):
    """The changed settings file cannot be used; what was in force stays in force."""

    name: ClassVar[str] = "settings.refused"
    level: ClassVar[str] = "error"
    problem: str


class SignalFailed(Event):
    """An activity signal cannot be read and counts as active; logged once until it recovers."""

    name: ClassVar[str] = "idle.signal.failed"
    level: ClassVar[str] = "error"
    signal: str
    problem: str


class SignalRecovered(Event):
    """A signal of activity can be read again."""

    name: ClassVar[str] = "idle.signal.recovered"
    signal: str


class LeaseTaken(Event):
    """Somebody holds the machine awake for at most `seconds`; again for the same name: longer."""

    name: ClassVar[str] = "lease.taken"
    summed: ClassVar[bool] = True
    lease: str
    seconds: float
    pid: int | None


class LeaseEnded(Event):
    """A lease was released, or its time or its process ended."""

    name: ClassVar[str] = "lease.ended"
    summed: ClassVar[bool] = True
    lease: str
    reason: str


class WakeJudged(Event):
    """What woke the machine: a `login`, a `scan` (connections without a login) or a `start`."""

    name: ClassVar[str] = "wake.reason"
    reason: str
    seconds: float


class SleepWarned(Event):
    """Every terminal was warned that the machine sleeps in `seconds`."""

    name: ClassVar[str] = "sleep.warned"
    level: ClassVar[str] = "warning"
    because: str
    seconds: float
    terminals: int


class SleepCancelled(Event):
    """The sleep that was due does not come, because something happened."""

    name: ClassVar[str] = "sleep.cancelled"
    because: str


class SleepBegan(Event):
    """The machine goes to sleep; `awake` is how long it was awake, in seconds.

    `reason` is one word (`idle`, `scan`, `limit`, `hand`), `because` says it to people.
    """

    name: ClassVar[str] = "sleep.began"
    reason: str
    because: str
    mode: str
    awake: float


class HookFailed(Event):
    """A program in sleep.d failed; the machine sleeps all the same."""

    name: ClassVar[str] = "sleep.hook.failed"
    level: ClassVar[str] = "error"
    hook: str
    problem: str


class SuspendFailed(Event):
    """The platform did not suspend the machine, which stops instead."""

    name: ClassVar[str] = "sleep.suspend.failed"
    level: ClassVar[str] = "warning"
    problem: str


class Resumed(Event):
    """The machine resumed after it was frozen, with everything in it."""

    name: ClassVar[str] = "sleep.resumed"
    because: str


class ServicesChanged(Event):
    """The set of services changed; services not named here were not touched."""

    name: ClassVar[str] = "services.changed"
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


class ServicesRefused(Event):
    """A file with services cannot be used; services loaded from it before keep running."""

    name: ClassVar[str] = "services.refused"
    level: ClassVar[str] = "error"
    file: str
    reason: str


class ServiceStarted(Event):
    """A service's process was started; it is not ready yet."""

    name: ClassVar[str] = "service.started"
    service: str
    pid: int
    restarts: int


class ServiceReady(Event):
    """A service is ready, so many seconds after its start."""

    name: ClassVar[str] = "service.ready"
    service: str
    seconds: float


class ServiceBackoff(Event):
    """A service ended or is unwell, and is started again after `retry_in` seconds."""

    name: ClassVar[str] = "service.backoff"
    level: ClassVar[str] = "warning"
    summed: ClassVar[bool] = True
    service: str
    because: str
    retry_in: float
    restarts: int


class ServiceFailed(Event):
    """A service is not started again by itself; `said` is the last that it said."""

    name: ClassVar[str] = "service.failed"
    level: ClassVar[str] = "error"
    service: str
    because: str
    said: str


class ServiceStopped(Event):
    """A service was stopped: by hand, because its file changed, or because the machine stops."""

    name: ClassVar[str] = "service.stopped"
    service: str


class ServiceCrashed(Event):
    """The agent itself failed at supervising a service: a defect of the agent."""

    name: ClassVar[str] = "service.crashed"
    level: ClassVar[str] = "error"
    service: str
    problem: str


class ServiceSaid(Event):
    """A line that a service wrote to its stdout or stderr (`stream`)."""

    name: ClassVar[str] = "service.said"
    bulk: ClassVar[bool] = True
    service: str
    stream: str
    line: str


class ServiceOutputLost(Event):
    """A service wrote more than can be logged: so many bytes were thrown away."""

    name: ClassVar[str] = "service.output.lost"
    level: ClassVar[str] = "warning"
    service: str
    bytes: int


class CheckpointMade(Event):
    """A checkpoint of the volume was made. `unread` files could not be read and are not in it."""

    name: ClassVar[str] = "checkpoint.made"
    checkpoint: str
    cause: str
    seconds: float
    files: int
    bytes: int
    added: int
    unread: int


class CheckpointFailed(Event):
    """A checkpoint could not be made; older ones were not touched."""

    name: ClassVar[str] = "checkpoint.failed"
    level: ClassVar[str] = "error"
    cause: str
    problem: str


class CheckpointsRemoved(Event):
    """Checkpoints were removed: by hand, or because they used more than their share."""

    name: ClassVar[str] = "checkpoint.removed"
    checkpoints: tuple[str, ...]
    reason: str


class CheckpointRestored(Event):
    """Files of a checkpoint were restored: `placed` changed, `removed` deleted."""

    name: ClassVar[str] = "checkpoint.restored"
    checkpoint: str
    target: str
    placed: int
    removed: int
    failures: int
    seconds: float


class CheckpointsReplaced(Event):
    """The repository of checkpoints could not be used and was set aside; a new one was begun."""

    name: ClassVar[str] = "checkpoint.replaced"
    level: ClassVar[str] = "error"
    reason: str
    kept_as: str


class CheckpointsUploaded(Event):
    """Every checkpoint is away from the machine too."""

    name: ClassVar[str] = "checkpoint.uploaded"
    seconds: float


class CheckpointUploadFailed(Event):
    """Checkpoints could not be copied away from the machine; it is tried again."""

    name: ClassVar[str] = "checkpoint.upload.failed"
    level: ClassVar[str] = "warning"
    problem: str
    retry_in: float


class CheckpointsChecked(Event):
    """A repository of checkpoints and part of its data were checked; `problem`: what is wrong."""

    name: ClassVar[str] = "checkpoint.checked"
    repository: str
    problem: str
    seconds: float


class LinesSummed(Event):
    """Repeated events were suppressed: count and period."""

    name: ClassVar[str] = "log.summed"
    level: ClassVar[str] = "warning"
    of: str
    lines: int
    seconds: float


class LinesDropped(Event):
    """Lines are lost: nobody read the log in time, or stdout refused them."""

    name: ClassVar[str] = "log.dropped"
    level: ClassVar[str] = "warning"
    lines: int
