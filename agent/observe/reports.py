"""The records of the control socket's requests and answers, which the commands show.

They are the documented format of `--json`: fields are added, never renamed.
"""

import msgspec

from agent.observe.checkpoint_reports import CheckpointReport


class SessionReport(msgspec.Struct, frozen=True):
    """An open SSH session. `since` is Unix time, `idle` seconds; bytes as the machine sees them."""

    id: str
    user: str
    key: str
    fingerprint: str
    client: str
    since: float
    idle: float
    bytes_in: int
    bytes_out: int
    terminals: list[str]
    pid: int


class KeyReport(msgspec.Struct, frozen=True):
    """An authorised key. `problem`: why no login with it succeeds now."""

    name: str
    type: str
    bits: int
    fingerprint: str
    source: str
    problem: str = ""


class KeysReport(msgspec.Struct, frozen=True):
    """All authorised keys, and the refused lines (`SOURCE line N: reason`).

    `odd`: remarks about the keys. `in_home`: why keys in the home do not count.
    """

    keys: list[KeyReport]
    refused: list[str]
    odd: list[str] = msgspec.field(default_factory=list)
    in_home: str = ""


class EgressReport(msgspec.Struct, frozen=True):
    """Where processes may connect to: names with their addresses, and recent refusals.

    `refused`: destination (`ADDRESS tcp/PORT`) → packets.
    """

    mode: str
    names: dict[str, list[str]]
    networks: list[str]
    refused: dict[str, int]


class HealthReport(msgspec.Struct, frozen=True):
    """Whether SSH can be used, and the problem of each part."""

    healthy: bool
    problems: dict[str, str]


class BanReport(msgspec.Struct, frozen=True):
    """A banned network: `seconds` is the remaining time, `times` how often it was banned."""

    network: str
    seconds: float
    times: int
    reason: str


class BanOrder(msgspec.Struct, frozen=True):
    """The request to ban a network; without `seconds`, its history decides how long."""

    network: str
    seconds: float | None = None


class BansLifted(msgspec.Struct, frozen=True):
    """How many active bans were lifted."""

    lifted: int


class LeaseReport(msgspec.Struct, frozen=True):
    """A lease that holds the machine awake for `seconds` more, or until `pid` exits.

    `capped`: the requested time exceeds the setting `lease_max`. `because`: the reason, if the
    name does not say it.
    """

    name: str
    seconds: float
    pid: int | None
    capped: bool = False
    because: str = ""


class LeaseOrder(msgspec.Struct, frozen=True):
    """The request to hold the machine awake: for `seconds`, or while the asking process runs.

    Never longer than the setting `lease_max`. It replaces an active lease of the same name.
    """

    name: str
    seconds: float | None = None
    while_running: bool = False


class SleepOrder(msgspec.Struct, frozen=True):
    """The request to sleep: after a warning, or `now`."""

    now: bool = False


class ReloadReport(msgspec.Struct, frozen=True):
    """The agent reloads; `reloads` is the number that its status shows afterwards."""

    reloads: int


class NoticeReport(msgspec.Struct, frozen=True):
    """A degradation: the latest one of its part. `since` is Unix time."""

    part: str
    since: float
    says: str


class SignReport(msgspec.Struct, frozen=True):
    """An observation of a signal at its last check, and whether it counts as activity."""

    counts: bool
    says: str


class SignalReport(msgspec.Struct, frozen=True):
    """A signal of activity: `idle` is seconds since it was last active (null: not yet)."""

    signal: str
    on: bool
    idle: float | None
    because: str
    problem: str | None
    seen: list[SignReport]


class IdleReport(msgspec.Struct, frozen=True):
    """Why the machine is awake, and when it sleeps.

    `sleeps_in` is in seconds (null: it does not sleep by itself). `because` is the latest activity
    or, once sleep is due, its reason. `state` is `awake`, `warned` or `sleeping`.
    """

    state: str
    because: str
    sleeps_in: float | None
    mode: str
    awake: float
    signals: list[SignalReport]
    leases: list[LeaseReport]


class SpaceReport(msgspec.Struct, frozen=True):
    """Bytes of the volume (its path is the name) or of memory; both 0 if it is missing."""

    name: str
    size: int
    free: int


class ServiceReport(msgspec.Struct, frozen=True):
    """A service. `since` is when it entered its state, `started` when its process started.

    `state` is inactive, waiting, starting, running, stopping, backoff, failed or done; `detail`
    says why.
    """

    name: str
    state: str
    detail: str
    since: float
    started: float | None
    pid: int | None
    restarts: int
    command: list[str]
    user: str


class ServicesReport(msgspec.Struct, frozen=True):
    """All services, and the refused files (`FILE: reason`)."""

    services: list[ServiceReport]
    refused: list[str]


class LineReport(msgspec.Struct, frozen=True):
    """A line of a service; `at` is Unix time, `number` counts the lines of the service."""

    number: int
    at: float
    stream: str
    text: str


class NotifyOutcome(msgspec.Struct, frozen=True):
    """The result of one line of SWARM_NOTIFY: its scheme, and its problem or nothing."""

    line: int
    kind: str
    problem: str


class NotifyReport(msgspec.Struct, frozen=True):
    """The result of a test message, address by address."""

    outcomes: list[NotifyOutcome]


class SubagentReport(msgspec.Struct, frozen=True):
    """A subagent of a coding agent, and its state."""

    id: str
    state: str
    need: str


class CodingAgentReport(msgspec.Struct, frozen=True):
    """A coding agent. `since` and `began` are Unix time; `need` is what it needs from a person.

    `state` is working, waiting, failed, unknown or ended. `works`: it holds the machine awake.
    `urgent`: its work is blocked until a person acts. `pane` is a pane of the tmux server at the
    socket `tmux`. The agent knows no text of a prompt or an answer.
    """

    name: str
    tool: str
    state: str
    need: str
    because: str
    since: float
    began: float
    folder: str
    place: str
    pane: str
    tmux: str
    pid: int
    prompts: int
    tool_calls: int
    works: bool
    urgent: bool
    note: str
    subagents: list[SubagentReport]


class StatusReport(msgspec.Struct, frozen=True):
    """Everything at a glance. `at` and `awake_since` are Unix time.

    `failures` and `reloads` count re-executions in place, by cause. `name` is the machine's,
    `region` where it runs; empty if unknown. `checkpoints`: only the latest few, the latest first.
    """

    version: str
    name: str
    region: str
    at: float
    user: str
    awake_since: float
    healthy: bool
    problems: dict[str, str]
    notices: list[NoticeReport]
    failures: int
    latest_failure: str
    reloads: int
    idle: IdleReport
    sessions: list[SessionReport]
    agents: list[CodingAgentReport]
    services: list[ServiceReport]
    bans: int
    latest_bans: list[BanReport]
    keys: list[str]
    volume: SpaceReport
    memory: SpaceReport
    budget_hours: float | None
    used_hours: float
    checkpoints_kept: int = 0
    checkpoints: list[CheckpointReport] = []


class ChartReport(msgspec.Struct, frozen=True):
    """Ten minutes from `start` (Unix time): seconds awake, most sessions, failed connections."""

    start: int
    awake: float
    sessions: int
    failures: int


class HistoryReport(msgspec.Struct, frozen=True):
    """A session. `opened` and `closed` are Unix time; null: still open, or the end is unknown."""

    id: str
    opened: float
    closed: float | None
    client: str
    user: str
    key: str
    fingerprint: str
    bytes_in: int
    bytes_out: int
    reason: str


class CodingHistoryReport(msgspec.Struct, frozen=True):
    """A coding agent changed its state at `at` (Unix time), after `seconds` in the previous one."""

    at: float
    agent: str
    tool: str
    folder: str
    state: str
    need: str
    because: str
    previous: str
    seconds: float


class UsageReport(msgspec.Struct, frozen=True):
    """Seconds awake by day and by month (UTC), the latest first, and the price of an hour.

    `hour_price` is null if unknown; `price_note` says why, or what the price is based on.
    """

    days: dict[str, float]
    months: dict[str, float]
    budget_hours: float | None
    hour_price: float | None
    currency: str
    price_note: str


class Kicked(msgspec.Struct, frozen=True):
    """The session that is being ended."""

    id: str


class SettingReport(msgspec.Struct, frozen=True):
    """A setting: its variable, its text, and the source of that text."""

    setting: str
    value: str
    source: str


class FindingReport(msgspec.Struct, frozen=True):
    """One thing that SSH needs from the machine, and whether it is all right."""

    what: str
    ok: bool
    says: str


class CheckReport(msgspec.Struct, frozen=True):
    """Every setting as the agent reads it now, and the findings on the machine."""

    settings: list[SettingReport]
    findings: list[FindingReport]
