"""The crew of this machine: receives hooks, looks at processes, publishes changes, holds leases.

`states` decides. This module has the clock, the processes, the events, and the page on the volume
that records which members a stop cuts off.
"""

import asyncio
import math
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from agent import words
from agent.bus import Bus
from agent.clock import clock
from agent.crew import states
from agent.crew.evidence import Looker, process_of, terminal_of
from agent.crew.hooks import ReportError, Teller, read
from agent.crew.inbox import Inbox
from agent.crew.page import CrewPage, Line
from agent.crew.states import (
    URGENT,
    Counted,
    CrewRecord,
    Kind,
    Member,
    Need,
    Report,
    Standing,
    State,
)
from agent.crew.tell import OWN_WORD
from agent.events import CodingAgentChanged, CodingTurnBegan, Event, Notice, StopBegan
from agent.idle.leases import Holder, Lease
from agent.platform.account import Account
from agent.settings.current import Current

MOST = 64
"""Members at one time: more is a flood of invented reports."""

MOST_ENDED = 20
"""Members that have ended and are still shown."""

ALONE = ("claude", "gemini")
"""Tools with one conversation per process. Gemini CLI may begin another before its first prompt,
without reporting it."""

SOON, LATER = 1.0, 15.0
"""Seconds between two looks: while something can change without a hook, and otherwise."""


class Crew:
    """The coding agents of the login account. Used from the event loop's thread only."""

    def __init__(
        self, record: CrewRecord, current: Current, account: Account, page: CrewPage, bus: Bus
    ) -> None:
        self._record = record
        self._members = record.members
        self._current = current
        self._account = account
        self._page = page
        self._bus = bus
        self._looker = Looker(account)
        self._woken = asyncio.Event()
        self._next_look = 0.0
        self._watched: dict[states.Process, int] = {}
        self._complained: set[str] = set()
        self._stopping = False
        bus.subscribe(self._hear_of_stop)
        self._keep_page()

    @property
    def members(self) -> list[Member]:
        """Members that have not ended, the one that waits longest for a person first."""
        return sorted(self._members.values(), key=_urgency)

    @property
    def ended(self) -> tuple[Member, ...]:
        """Members that have ended, the latest first."""
        return self._record.ended

    def counted(self) -> Counted:
        """Seconds that coding agents have worked and waited since the machine started."""
        now, before = clock(), self._record.counted
        live = [states.count(each, now) for each in self._members.values()]
        return Counted(
            before.working + sum(each.working_seconds for each in live),
            before.waiting + sum(each.waiting_seconds for each in live),
        )

    def leases(self, now: float) -> list[Lease]:
        """A lease for each member that works, for as long as its process runs."""
        longest = self._current.value.lease_max
        return [
            Lease(
                each.name,
                each.works_since,
                each.works_since + longest,
                Holder(*each.process),
                f"{says_who(each)} has worked for {words.duration(now - each.works_since)}",
            )
            for each in self._members.values()
            if each.works_since is not None
        ]

    async def run(self) -> None:
        """Receive hooks and look until cancelled. Raises `OSError` if hooks cannot be received."""
        settings = self._current.value
        inbox = Inbox(settings.run_dir, self._account.uid, self._account.gid, self.hear)
        async with asyncio.TaskGroup() as group:
            group.create_task(inbox.run())
            group.create_task(self._look())
            group.create_task(self._page.run())

    def hear(self, data: bytes) -> None:
        """Handle what a hook has sent."""
        try:
            teller, report = read(data)
        except ReportError as error:
            return self._complain(f"a hook sent unusable data: {error}")
        if report is None:
            return None
        key = (teller.tool, teller.session)
        now = clock()
        member = self._members.get(key) or self._new(teller, report, now)
        if member is None:
            return None
        pane, tmux = (teller.pane, teller.tmux) if teller.pane else (member.pane, member.tmux)
        folder, path = member.folder or teller.folder, teller.record or member.record
        member = replace(member, folder=folder, pane=pane, tmux=tmux, record=path)
        self._update(key, states.hear(member, report, now, time.time()))
        if report.kind is Kind.TURN:
            self._bus.publish(
                CodingTurnBegan(
                    agent=member.name,
                    tool=member.tool,
                    folder=member.folder,
                    session=member.session,
                    typed=report.typed,
                )
            )
        self._look_within(SOON)
        return None

    def _new(self, teller: Teller, report: Report, now: float) -> Member | None:
        """A new member, or None if it is not followed."""
        process = process_of(teller.pid, self._account.uid)
        if process is None or report.kind is Kind.ENDED:
            return None  # it was over before its hook was read
        if teller.tool in ALONE:
            # The end of the earlier conversation was not reported.
            for key, other in list(self._members.items()):
                if other.process == process and other.tool == teller.tool:
                    self._update(key, states.end(other, "another conversation began", now))
        if len(self._members) >= MOST:
            self._complain(f"more than {MOST} coding agents report: the rest is not followed")
            return None
        name = self._name(teller)
        standing = Standing(State.WAITING, Need.PROMPT, now, "it has just started")
        member = Member(
            name=name,
            tool=teller.tool,
            session=teller.session,
            process=process,
            folder=teller.folder,
            pane=teller.pane,
            tmux=teller.tmux,
            began=now,
            counted=now,
            standing=standing,
            heard=now,
            heard_wall=time.time(),
            lived=now,
        )
        self._watch(process)
        return member

    def _name(self, teller: Teller) -> str:
        if teller.tool == OWN_WORD:
            return teller.session
        taken = {each.name for each in self._members.values()}
        return next(name for n in range(1, MOST + 2) if (name := f"{teller.tool}-{n}") not in taken)

    def _update(self, key: tuple[str, str], member: Member) -> None:
        before = self._members.get(key)
        if member.ended:
            self._members.pop(key, None)
            record, counted = self._record, self._record.counted
            record.ended = (member, *record.ended)[:MOST_ENDED]
            record.counted = Counted(
                counted.working + member.working_seconds,
                counted.waiting + member.waiting_seconds,
            )
            self._forget_process(member.process)
        else:
            self._members[key] = member
        old = None if before is None else before.standing
        if old is None or (old.state, old.need) != (member.standing.state, member.standing.need):
            self._publish(old, member)
            if not self._stopping:
                self._keep_page()

    def _keep_page(self) -> None:
        self._page.keep([_line(each) for each in self._members.values()])

    def _publish(self, old: Standing | None, member: Member) -> None:
        standing = member.standing
        self._bus.publish(
            CodingAgentChanged(
                agent=member.name,
                tool=member.tool,
                folder=member.folder,
                state=standing.state.value,
                need=standing.need.value,
                because=standing.because,
                previous="" if old is None else old.state.value,
                seconds=0.0 if old is None else standing.since - old.since,
                works=member.works,
            )
        )

    async def _look(self) -> None:
        """Look at every member whenever it is due."""
        self._next_look = clock()
        for member in self._members.values():
            self._watch(member.process)
        while True:
            await self._until_due()
            members = list(self._members.values())
            # Without members no look is due: the first hook of a new one makes it due.
            self._next_look = clock() + LATER if members else math.inf
            if not members:
                continue
            seen = await asyncio.to_thread(self._looker.look, members)
            now = clock()
            for key, member in list(self._members.items()):
                evidence = seen.get(member.name)
                if evidence is None:
                    continue
                if any(member is each for each in members) or not evidence.alive:
                    self._update(key, states.look(member, evidence, now))
            if any(_may_change(each, clock()) for each in self._members.values()):
                self._look_within(SOON)

    async def _until_due(self) -> None:
        while (rest := self._next_look - clock()) > 0:
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(rest if rest < math.inf else None):
                    await self._woken.wait()

    def _look_within(self, seconds: float) -> None:
        due = clock() + seconds
        if due < self._next_look:
            self._next_look = due
            self._woken.set()

    def _watch(self, process: states.Process) -> None:
        """Look at once when the process ends."""
        if process in self._watched:
            return
        try:
            descriptor = os.pidfd_open(process[0])
        except OSError:
            # It is gone already, or no descriptor is left: the next look notices its end.
            self._look_within(0.0)
            return
        self._watched[process] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._process_ended, process)

    def _process_ended(self, process: states.Process) -> None:
        self._forget_process(process, ended=True)
        now = clock()
        for key, member in list(self._members.items()):
            if member.process == process:
                self._update(key, states.end(member, "its process is gone", now))

    def _forget_process(self, process: states.Process, *, ended: bool = False) -> None:
        if ended or all(each.process != process for each in self._members.values()):
            descriptor = self._watched.pop(process, None)
            if descriptor is not None:
                asyncio.get_running_loop().remove_reader(descriptor)
                os.close(descriptor)

    def _complain(self, problem: str) -> None:
        """Report a problem with hooks once."""
        if problem not in self._complained:
            self._complained.add(problem)
            self._bus.publish(Notice(part="coding agents", notice=problem))

    def _hear_of_stop(self, event: Event) -> None:
        # From now on members end because the machine stops: the page keeps who was cut off.
        if isinstance(event, StopBegan):
            self._stopping = True


def says_who(member: Member) -> str:
    """`claude in /workspace/api`."""
    who = member.name if member.tool == OWN_WORD else member.tool
    return f"{who} in {member.folder}" if member.folder else who


def says_what(standing: Standing) -> str:
    """`working`, `waits for a permission`, `failed: rate limit`."""
    match standing.state:
        case State.WAITING:
            return f"waits for {standing.need.value}"
        case State.FAILED:
            return f"failed: {standing.because}"
        case _:
            return str(standing.state.value)


def place_of(member: Member) -> str:
    """The member's tmux pane or terminal; empty if it has none."""
    if member.pane:
        return f"tmux {member.pane}"
    terminal = terminal_of(member.process[0])
    return "" if terminal is None else terminal.name


def greeting(crew: Crew, now: float) -> Iterable[str]:
    """Lines for the greeting: members that wait for a person or have failed."""
    for member in crew.members:
        standing = member.standing
        if standing.need in URGENT or standing.state is State.FAILED:
            since = words.duration(now - standing.since)
            yield f"{says_who(member)} {_waits_for_you(standing)}, for {since}."


def _waits_for_you(standing: Standing) -> str:
    if standing.state is State.FAILED:
        return f"has failed ({standing.because})"
    return f"waits for {'your answer' if standing.need is Need.ANSWER else 'your permission'}"


def _line(member: Member) -> Line:
    return Line(says_who(member), says_what(member.standing), member.works, member.main.urgent)


def _urgency(member: Member) -> tuple[int, float]:
    standing = member.standing
    order = (
        0
        if standing.need in URGENT
        else [State.FAILED, State.WAITING, State.UNKNOWN, State.WORKING].index(standing.state) + 1
    )
    return order, standing.since


def _may_change(member: Member, now: float) -> bool:
    """Its state can change without a hook."""
    standing = member.standing
    settles = now - member.heard < 2 * states.SETTLED
    return settles or standing.state is State.WORKING or standing.need in URGENT
