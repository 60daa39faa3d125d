"""The event vocabulary: everything the agent reports has one of these types.

An event is a fact; its name never changes. `agent/bus.py` distributes events.
"""

import time
from typing import Any, ClassVar, dataclass_transform, get_origin


@dataclass_transform(kw_only_default=True, frozen_default=True)
class _Record:
    """Looks like a frozen dataclass to a type checker.

    It is none: `dataclass` generates and compiles methods for every class, which for all events
    takes a quarter of the time from exec to the banner.
    """

    fields: ClassVar[tuple[str, ...]] = ()
    """Its own fields, the most useful first."""

    def __init_subclass__(cls) -> None:
        kinds: dict[str, object] = cls.__annotations__
        cls.fields = tuple(name for name in kinds if get_origin(kinds[name]) is not ClassVar)

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.fields)
        return f"{type(self).__name__}({said})"


class Event(_Record):
    """The base of all events; `at` is the wall-clock time at which it happened, in seconds.

    Raises `TypeError` if a field is missing or unknown.
    """

    name: ClassVar[str]
    level: ClassVar[str] = "info"
    summed: ClassVar[bool] = False
    """An attacker can cause any number of these: the log sums up floods of them."""
    bulk: ClassVar[bool] = False
    """The account can cause any number of these; all are written while there is room."""
    at: float = 0.0

    def __init__(self, **values: Any) -> None:
        super().__init__(**{"at": time.time()} | values)
        if len(self.__dict__) != len(self.fields) + 1 or not self.__dict__.keys() >= {*self.fields}:
            given = ", ".join(sorted(values))
            raise TypeError(f"{type(self).__name__} has {', '.join(self.fields)}; given: {given}")


class BootPhase(Event):
    """A phase of the start-up ended after `seconds`."""

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
    """The agent cannot serve SSH and exits."""

    name: ClassVar[str] = "boot.failed"
    level: ClassVar[str] = "error"
    problem: str


class AgentFailed(Event):
    """An unexpected error stopped the agent, which re-executes in place."""

    name: ClassVar[str] = "agent.failed"
    level: ClassVar[str] = "error"
    problem: str
    where: str


class Reexecuted(Event):
    """The agent has re-executed in place; SSH, connections and services stayed open.

    `failures` and `reloads` count the re-executions since the machine started, by cause.
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
    """A part that SSH does not depend on crashed and restarts in `retry_in` seconds."""

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
    """A key is no longer authorised and cannot log in any more. Its open sessions continue."""

    name: ClassVar[str] = "ssh.key.removed"
    key: str
    fingerprint: str
    source: str


class KeyRefused(Event):
    """A line of the authorised keys is not usable; line 0 means the whole file or folder."""

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
    """The egress rules refused connections to `destinations`, most packets first.

    `others` counts further destinations.
    """

    name: ClassVar[str] = "egress.refused"
    level: ClassVar[str] = "warning"
    destinations: tuple[str, ...]
    others: int
    packets: int


class EgressUnresolved(Event):
    """Allowed names without an address now; their previous addresses stay allowed for an hour."""

    name: ClassVar[str] = "egress.unresolved"
    names: tuple[str, ...]


class HomeMoved(Event):
    """`path` moved from the home to the volume and is linked from now on."""

    name: ClassVar[str] = "home.moved"
    path: str


class HostKey(Event):
    """The machine's host key; `origin` is `restored`, `created` or `ephemeral`."""

    name: ClassVar[str] = "ssh.hostkey"
    type: str
    fingerprint: str
    origin: str


class HostKeyReplaced(Event):
    """A host key on the volume could not be used and was set aside; SSH clients will warn."""

    name: ClassVar[str] = "ssh.hostkey.replaced"
    level: ClassVar[str] = "error"
    reason: str
    kept_as: str


class ConnectionsRefused(Event):
    """The gate closed connections before any sshd was started for them.

    The first refusal of each reason is logged at once, with its client; a flood is summed up.
    """

    name: ClassVar[str] = "ssh.connections.refused"
    level: ClassVar[str] = "warning"
    reason: str
    count: int
    client: str
    detail: str


class ConnectionClosed(Event):
    """A connection ended without a login; `verdict` classifies it."""

    name: ClassVar[str] = "ssh.connection.closed"
    summed: ClassVar[bool] = True
    session: str
    client: str
    verdict: str
    user: str
    reason: str
    seconds: float


class ConnectionUnused(Event):
    """A connection ended without a login attempt: a health check or a port scan."""

    name: ClassVar[str] = "ssh.connection.unused"
    level: ClassVar[str] = "debug"
    session: str
    client: str
    seconds: float


class AccountRefused(Event):
    """sshd refuses the login account, whatever the key; clients get no strike. Logged once."""

    name: ClassVar[str] = "ssh.account.refused"
    level: ClassVar[str] = "error"
    reason: str


class ClientUnknown(Event):
    """The proxy did not name the client; such clients are never banned. Logged once."""

    name: ClassVar[str] = "ssh.client.unknown"
    level: ClassVar[str] = "warning"
    proxy: str


class BanStarted(Event):
    """A network is banned for `seconds`, and `cut` connections were closed.

    With `dry_run` nothing is done.
    """

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
    """A ban was lifted by hand, or its history is over."""

    name: ClassVar[str] = "ban.lifted"
    summed: ClassVar[bool] = True
    network: str
    reason: str


class StateReplaced(Event):
    """The state database could not be read and was set aside; a new one was created."""

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
    """New connections cannot be accepted for now (out of descriptors or memory)."""

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
    """A session ended. `bytes_in` is what the machine received, `bytes_out` what it sent."""

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
    """The command given to `run --` exited; the container exits with its status."""

    name: ClassVar[str] = "command.ended"
    status: int


class StopBegan(Event):
    """Shutdown begins and takes at most `budget` seconds."""

    name: ClassVar[str] = "agent.stopping"
    reason: str
    sessions: int
    budget: float


class StopForced(Event):
    """Processes were killed because they did not exit when asked to."""

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
    """The settings file changed: `applied` is in force now, `waiting` after a restart."""

    name: ClassVar[str] = "settings.changed"
    applied: tuple[str, ...]
    waiting: tuple[str, ...]


class CodingAgentChanged(Event):
    """The state of a coding agent changed; it was in the `previous` one for `seconds`.

    `need`: what it needs from a person while it waits. `works`: it holds the machine awake.
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
    """A coding agent begins a turn; `typed` if a person wrote the prompt, not a finished task."""

    name: ClassVar[str] = "coding.turn"
    summed: ClassVar[bool] = True
    agent: str
    tool: str
    folder: str
    session: str
    typed: bool


class NewsSent(Event):
    """The address in a line of SWARM_NOTIFY accepted a message; `kind` is its scheme (`ntfy`)."""

    name: ClassVar[str] = "notify.sent"
    line: int
    kind: str


class NewsNotSent(Event):
    """The address in a line of SWARM_NOTIFY did not accept a message; retried, and logged once."""

    name: ClassVar[str] = "notify.failed"
    level: ClassVar[str] = "warning"
    line: int
    kind: str
    problem: str


class SettingsRefused(Event):
    """The changed settings file cannot be used; the previous settings stay in force."""

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
    """An activity signal can be read again."""

    name: ClassVar[str] = "idle.signal.recovered"
    signal: str


class LeaseTaken(Event):
    """A lease was taken or renewed: it holds the machine awake for at most `seconds`."""

    name: ClassVar[str] = "lease.taken"
    summed: ClassVar[bool] = True
    lease: str
    seconds: float
    pid: int | None


class LeaseEnded(Event):
    """A lease was released, or it expired, or its process exited."""

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
    """The announced sleep was cancelled because of new activity."""

    name: ClassVar[str] = "sleep.cancelled"
    because: str


class SleepBegan(Event):
    """The machine goes to sleep after `awake` seconds awake.

    `reason` is one word (`idle`, `scan`, `limit`, `hand`); `because` explains it to people.
    """

    name: ClassVar[str] = "sleep.began"
    reason: str
    because: str
    mode: str
    awake: float


class HookFailed(Event):
    """A program in sleep.d failed; the machine sleeps anyway."""

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
    """The machine resumed from a suspend, with all its processes."""

    name: ClassVar[str] = "sleep.resumed"
    because: str


class ServicesChanged(Event):
    """The set of services changed; services not named here were not touched."""

    name: ClassVar[str] = "services.changed"
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


class ServicesRefused(Event):
    """A file with services cannot be used; services loaded from it earlier keep running."""

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
    """A service is ready, `seconds` after its start."""

    name: ClassVar[str] = "service.ready"
    service: str
    seconds: float


class ServiceBackoff(Event):
    """A service exited or is unhealthy, and restarts in `retry_in` seconds."""

    name: ClassVar[str] = "service.backoff"
    level: ClassVar[str] = "warning"
    summed: ClassVar[bool] = True
    service: str
    because: str
    retry_in: float
    restarts: int


class ServiceFailed(Event):
    """A service failed and is not restarted; `said` is its last output."""

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
    """The agent itself failed while supervising a service: a defect of the agent."""

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
    """A service wrote more than can be logged; `bytes` were dropped."""

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
    """Checkpoints were removed, by hand or because they used more than their share."""

    name: ClassVar[str] = "checkpoint.removed"
    checkpoints: tuple[str, ...]
    reason: str


class CheckpointRestored(Event):
    """A checkpoint was restored: `placed` files were written, `removed` files deleted."""

    name: ClassVar[str] = "checkpoint.restored"
    checkpoint: str
    target: str
    placed: int
    removed: int
    failures: int
    seconds: float


class CheckpointsReplaced(Event):
    """The repository of checkpoints could not be used and was set aside; a new one was created."""

    name: ClassVar[str] = "checkpoint.replaced"
    level: ClassVar[str] = "error"
    reason: str
    kept_as: str


class CheckpointsUploaded(Event):
    """Every checkpoint is now also in the repository away from the machine."""

    name: ClassVar[str] = "checkpoint.uploaded"
    seconds: float


class CheckpointUploadFailed(Event):
    """Checkpoints could not be copied away from the machine; retried in `retry_in` seconds."""

    name: ClassVar[str] = "checkpoint.upload.failed"
    level: ClassVar[str] = "warning"
    problem: str
    retry_in: float


class CheckpointsChecked(Event):
    """A repository of checkpoints and part of its data were checked; `problem` is empty if good."""

    name: ClassVar[str] = "checkpoint.checked"
    repository: str
    problem: str
    seconds: float


class LinesSummed(Event):
    """Repeated events `of` one kind were suppressed: how many `lines` in how many `seconds`."""

    name: ClassVar[str] = "log.summed"
    level: ClassVar[str] = "warning"
    of: str
    lines: int
    seconds: float


class LinesDropped(Event):
    """Log lines were lost: nobody read the log in time, or stdout refused them."""

    name: ClassVar[str] = "log.dropped"
    level: ClassVar[str] = "warning"
    lines: int
