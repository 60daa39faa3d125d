"""The state of a coding agent: a pure function of its hooks and of evidence from outside.

No hook fires when a permission is granted or denied or a turn is interrupted, and none after a
kill -9. So hooks, the tool's own session file, the process and its terminal are combined whenever
one of them changes. If they contradict each other for long, the state is *unknown*, which does not
keep the machine awake. Times are seconds of a clock that never steps; `wall` is Unix time, compared
only with the stamps of session files and of the tool's records.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

SETTLED = 3.0
"""Seconds after a hook from which the session file counts even if it has not changed since."""

QUIET = 30.0
"""Seconds without any sign of life after which a turn of a tool without a session file is in doubt.
The kernel records a terminal's output every 8 seconds only."""

ASIDE = 0.3
"""Seconds after a question during which other hooks of the tool may still start."""

LIVES = 0.5
"""Seconds after which a process that a tool has started is a tool call, not a hook."""

MOST_SUBS, MOST_CALLS = 32, 64

Process = tuple[int, int]
"""A process id and its start, in clock ticks since the kernel's boot."""


class State(Enum):
    """The state of a coding agent, in the word that people read."""

    WORKING = "working"
    WAITING = "waiting"
    FAILED = "failed"
    UNKNOWN = "unknown"
    ENDED = "ended"


class Need(Enum):
    """What a waiting agent needs from a person."""

    NOTHING = ""
    PERMISSION = "a permission"
    ANSWER = "an answer"
    PROMPT = "the next prompt"


class Kind(Enum):
    """What a hook reports."""

    STARTED = "started"
    TURN = "turn"
    CALL = "call"
    CALLED = "called"
    ASKED = "asked"
    REMINDED = "reminded"
    """The tool says after a while that it still waits; it may say so late."""
    ANSWERED = "answered"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    ENDED = "ended"
    SUB_STARTED = "subagent started"
    SUB_STOPPED = "subagent stopped"


@dataclass(frozen=True, slots=True)
class Report:
    """One thing that happened in a session; `sub` names the subagent, or is empty.

    `background` is how many tasks keep running after a turn, `typed` whether a person wrote the
    prompt, `error` one word.
    """

    kind: Kind
    sub: str = ""
    call: str = ""
    need: Need = Need.NOTHING
    background: int = 0
    typed: bool = True
    error: str = ""
    note: str = ""
    at: float = 0.0
    """When the hook ran, in Unix time; 0 if unknown."""


URGENT = (Need.PERMISSION, Need.ANSWER)
"""Work has stopped until a person does something."""


@dataclass(frozen=True, slots=True)
class Part:
    """The main conversation of a session, or one of its subagents."""

    state: State
    need: Need = Need.NOTHING
    error: str = ""

    @property
    def urgent(self) -> bool:
        """Its work has stopped until a person does something."""
        return self.state is State.WAITING and self.need in URGENT


WORKING = Part(State.WORKING)
IDLE = Part(State.WAITING, Need.PROMPT)


@dataclass(frozen=True, slots=True)
class FileSays:
    """The contents of the tool's own session file, and the Unix time of its last change."""

    status: str
    waits_for: str = ""
    stamp: float = 0.0


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a turn in the tool's own record of the conversation, and its Unix time."""

    stamp: float
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """Observations of a member from outside. `output`: its terminal was written since the last look
    (None: it has no terminal); `born`: when the processes below it were started; `ending`: the end
    of the latest turn, where the tool records it."""

    alive: bool
    file: FileSays | None = None
    output: bool | None = None
    born: tuple[float, ...] = ()
    ending: Ending | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of the whole session since `since`, and the reason."""

    state: State
    need: Need
    since: float
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One session of a coding tool: `tool` is its name, `process` the process that reports."""

    name: str
    tool: str
    session: str
    process: Process
    folder: str
    pane: str
    tmux: str
    began: float
    counted: float
    """Until when the seconds below are counted."""
    standing: Standing
    heard: float
    heard_wall: float
    main: Part = IDLE
    subs: Mapping[str, Part] = field(default_factory=dict)
    background: int = 0
    calls: frozenset[str] = frozenset()
    prompts: int = 0
    tool_calls: int = 0
    note: str = ""
    file: FileSays | None = None
    record: str = ""
    """The path of the tool's own record of the conversation."""
    asked: float = 0.0
    """Since when processes that start below it are tool calls: its last prompt or question."""
    prompted: float = 0.0
    """The Unix time of its last prompt."""
    over: float = 0.0
    """The Unix time of the latest end of a turn that was accepted from its record."""
    lived: float = 0.0
    """When the last sign of life other than a hook was seen."""
    works_since: float | None = None
    """Since when something has been running without a pause, or None."""
    working_seconds: float = 0.0
    waiting_seconds: float = 0.0

    @property
    def works(self) -> bool:
        """Something runs for which the machine must stay awake."""
        if self.main.state in (State.ENDED, State.UNKNOWN):
            return False
        parts = (self.main, *self.subs.values())
        return self.background > 0 or any(part.state is State.WORKING for part in parts)

    @property
    def ended(self) -> bool:
        """Its session has ended."""
        return self.main.state is State.ENDED


@dataclass(frozen=True, slots=True)
class Counted:
    """Seconds that members have worked and waited."""

    working: float = 0.0
    waiting: float = 0.0


@dataclass(slots=True)
class CrewRecord:
    """The crew: members by tool and session, ended members (latest first), and their seconds."""

    members: dict[tuple[str, str], Member] = field(default_factory=dict)
    ended: tuple[Member, ...] = ()
    counted: Counted = field(default_factory=Counted)


def hear(member: Member, report: Report, now: float, wall: float) -> Member:
    """The member after a report of its tool."""
    heard = replace(member, heard=now, heard_wall=wall, note=report.note or member.note)
    return _settle(member, _after(heard, report), now)


def look(member: Member, evidence: Evidence, now: float) -> Member:
    """The member after a look at it from outside."""
    if member.ended:
        return member
    if not evidence.alive:
        return end(member, "its process is gone", now)
    if evidence.file is not None:
        return _settle(member, _apply_file(member, evidence.file, now), now)
    return _settle(member, _without_file(member, evidence, now), now)


def end(member: Member, because: str, now: float) -> Member:
    """The member after its end."""
    ended = replace(member, main=Part(State.ENDED), subs={}, background=0, calls=frozenset())
    return _settle(member, ended, now, because)


def _after(member: Member, report: Report) -> Member:
    match report.kind:
        case Kind.STARTED if member.ended:
            member = replace(member, main=IDLE)
        case Kind.STARTED:
            pass  # a conversation that was compacted starts again in the middle of a turn
        case Kind.TURN:
            prompts = member.prompts + report.typed
            prompted = min(report.at or member.heard_wall, member.heard_wall)
            member = replace(member, prompts=prompts, prompted=prompted, calls=frozenset())
            member = _with_part(replace(member, asked=member.heard), "", WORKING)
        case Kind.CALL:
            calls = member.calls | {report.call} if len(member.calls) < MOST_CALLS else member.calls
            member = replace(member, calls=calls, tool_calls=member.tool_calls + 1)
            member = _with_part(member, report.sub, WORKING)
        case Kind.CALLED:
            member = replace(member, calls=member.calls - {report.call})
            if member.over < member.prompted:  # else: a call that was cut off with its turn
                member = _with_part(member, report.sub, WORKING)
        case Kind.ASKED:
            asking = Part(State.WAITING, report.need)
            asked = member.heard + ASIDE
            member = _with_part(replace(member, asked=asked), report.sub, asking)
        case Kind.ANSWERED | Kind.SUB_STARTED:
            member = _with_part(member, report.sub, WORKING)
        case Kind.SUB_STOPPED:
            subs = {name: part for name, part in member.subs.items() if name != report.sub}
            member = replace(member, subs=subs)
        case _:
            member = _after_turn(member, report)
    return member


def _after_turn(member: Member, report: Report) -> Member:
    match report.kind:
        case Kind.STOPPED:
            # A conversation that has failed stays failed until the next prompt.
            main = member.main if member.main.state is State.FAILED else IDLE
            return replace(member, main=main, background=report.background, calls=frozenset())
        case Kind.REMINDED:
            asks = any(part.urgent for part in (member.main, *member.subs.values()))
            if asks or member.main.state is State.FAILED:
                return member
            return replace(member, main=Part(State.WAITING, report.need))
        case Kind.FAILED:
            main = Part(State.FAILED, error=report.error)
            return replace(member, main=main, calls=frozenset())
        case Kind.ENDED:
            return replace(member, main=Part(State.ENDED), subs={}, background=0)
        case _:  # interrupted: everything that belongs to the turn ends
            return replace(member, main=IDLE, subs={}, calls=frozenset())


def _with_part(member: Member, sub: str, part: Part) -> Member:
    if not sub:
        return replace(member, main=part)
    if sub not in member.subs and len(member.subs) >= MOST_SUBS:
        return member
    return replace(member, subs={**member.subs, sub: part})


def _apply_file(member: Member, file: FileSays, now: float) -> Member:
    """Apply the session file if it is newer than the last hook.

    An older one counts once the tool has had the time to write it (`SETTLED`).
    """
    seen = replace(member, file=file)
    if file.stamp <= member.heard_wall and now - member.heard < SETTLED:
        return seen
    parts = (member.main, *member.subs.values())
    match file.status:
        case "busy":
            subs = {name: WORKING if part.urgent else part for name, part in member.subs.items()}
            busy = member.main.urgent or not any(part.state is State.WORKING for part in parts)
            return replace(seen, main=WORKING if busy else member.main, subs=subs)
        case "waiting":
            if any(part.urgent for part in parts):
                return seen
            need = Need.PERMISSION if "permission" in file.waits_for else Need.ANSWER
            return replace(seen, main=Part(State.WAITING, need))
        case "idle" | "shell":
            main = member.main if member.main.state is State.FAILED else IDLE
            background = max(1, member.background) if file.status == "shell" else 0
            return replace(seen, main=main, subs={}, calls=frozenset(), background=background)
        case _:
            return seen


def _without_file(member: Member, evidence: Evidence, now: float) -> Member:
    """Apply processes, the record of the conversation and the terminal, without a session file.

    Codex and Gemini CLI record the end of a turn but no grant. A granted call shows as a process.
    """
    runs = any(member.asked < born <= now - LIVES for born in evidence.born)
    seen = replace(member, lived=now if runs or evidence.output else member.lived)
    if evidence.ending is not None and evidence.ending.stamp > max(member.prompted, member.over):
        return _ended_turn(seen, evidence.ending)
    if runs and member.main.urgent:
        return replace(seen, main=WORKING)
    silent = evidence.output is not None and now - max(member.heard, seen.lived) >= QUIET
    if silent and member.tool in SILENT and member.main.state is State.WORKING:
        return replace(seen, main=Part(State.UNKNOWN))
    return seen


def _ended_turn(member: Member, ending: Ending) -> Member:
    over = replace(member, over=ending.stamp, calls=frozenset(), subs={})
    runs = member.main.urgent or member.main.state in (State.WORKING, State.UNKNOWN)
    # An error after the turn's last hook does not belong to the turn.
    if ending.failed and (runs or member.heard_wall >= ending.stamp):
        return replace(over, main=Part(State.FAILED, error="error"))
    return replace(over, main=IDLE) if runs else over


SILENT = ("codex", "gemini")
"""Tools without a hook for every end of a turn; their records may be switched off."""


def count(member: Member, now: float) -> Member:
    """The member with its times counted until now."""
    passed = now - member.counted
    match member.standing.state:
        case State.WORKING:
            working = member.working_seconds + passed
            return replace(member, counted=now, working_seconds=working)
        case State.WAITING:
            waiting = member.waiting_seconds + passed
            return replace(member, counted=now, waiting_seconds=waiting)
        case _:
            return replace(member, counted=now)


def _settle(before: Member, after: Member, now: float, because: str = "") -> Member:
    """Derive the state of the whole session; `since` changes only with it."""
    state, need, why = _standing(after)
    old = before.standing
    since = old.since if (state, need) == (old.state, old.need) else now
    works_since = before.works_since if before.works_since is not None else now
    return replace(
        count(after, now),
        standing=Standing(state, need, since, because or why),
        works_since=works_since if after.works else None,
    )


def _standing(member: Member) -> tuple[State, Need, str]:
    parts = (member.main, *member.subs.values())
    asking = next((part for part in parts if part.urgent), None)
    if asking is not None:
        whose = "" if asking is member.main else "a subagent "
        return State.WAITING, asking.need, f"{whose}needs {asking.need.value}"
    if member.main.state in _WORDS:
        return member.main.state, Need.NOTHING, member.main.error or _WORDS[member.main.state]
    if member.works:
        return State.WORKING, Need.NOTHING, _work(member)
    return State.WAITING, Need.PROMPT, "its turn is over"


_WORDS = {
    State.ENDED: "it reported its end",
    State.FAILED: "error",
    State.UNKNOWN: "its turn has not ended, but its terminal shows no output",
}


def _work(member: Member) -> str:
    if member.main.state is State.WORKING:
        return "a tool call runs" if member.calls else "a turn runs"
    return "a subagent works" if member.subs else "a background task runs"
