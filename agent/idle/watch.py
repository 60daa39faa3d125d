"""Watches for activity: reads the signals, decides, warns, and puts the machine to sleep.

A signal that cannot be read counts as active: the machine never sleeps because a look failed. One
`Watch` lasts as long as the agent; `run` may crash and restart without losing state.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from agent import words
from agent.access.gate import Gate
from agent.bus import Bus
from agent.clock import clock
from agent.events import (
    CodingTurnBegan,
    Event,
    LeaseTaken,
    Resumed,
    SessionClosed,
    SessionOpened,
    SettingsChanged,
    SignalFailed,
    SignalRecovered,
    SleepCancelled,
    SleepWarned,
    WakeJudged,
)
from agent.idle.budget import Budget
from agent.idle.policy import Activity, Awake, Cause, Decision, Seen, Sleep, Warn, decide
from agent.idle.signals.sign import Sign, Signal
from agent.idle.sleep import Sleeper
from agent.settings import Settings
from agent.settings.current import Current
from agent.state.runs import BEAT

LONGEST_PAUSE, SHORTEST_PAUSE = 20.0, 1.0
"""Seconds between two looks: a twentieth of the idle timeout, within these."""

FROZEN = 10.0
"""A pause that is so many seconds too long means that the machine or the agent was frozen."""

LONGEST_WAKE = 180.0
"""Seconds after which a wake-up without a login is judged if no wake window is set."""

NEWCOMER_POLL = 0.1

COMPELLED = (Cause.LIMIT, Cause.HAND)
"""Sleeps that no activity can postpone."""

COMPELLED_POLL = 1.0
"""Seconds between two checks for such a sleep while signals are read."""


@dataclass(slots=True)
class View:
    """The latest activity of one signal, and the result of its last look."""

    latest: Activity | None = None
    signs: Sequence[Sign] = ()
    problem: str | None = None


@dataclass(slots=True)
class Waking:
    """This time awake, from a start or a resume on."""

    began: float
    arrivals: int
    """The gate's count of arrivals when it began."""
    logins: int = 0
    judged: bool = False


@dataclass(slots=True)
class Intent:
    """A sleep that is due or was asked for."""

    ordered: float | None = None
    at_once: bool = False
    warned: float | None = None


@dataclass(slots=True)
class WatchRecord:
    """The state of the watch in this time awake."""

    waking: Waking
    latest: Activity
    intent: Intent = field(default_factory=Intent)
    views: dict[str, View] = field(default_factory=dict)
    """The view of each signal, by its name."""

    @classmethod
    def begin(cls, now: float) -> "WatchRecord":
        """The state of a machine that has just started."""
        return cls(Waking(now, 0), Activity("start", now, "the machine started"))


class Watch:
    """Keeps the machine awake while it is used. `signals` creates the enabled signals."""

    def __init__(
        self,
        current: Current,
        gate: Gate,
        has_sessions: Callable[[], bool],
        budget: Budget,
        sleeper: Sleeper,
        signals: Callable[[], list[Signal]],
        bus: Bus,
        record: WatchRecord,
    ) -> None:
        self._current = current
        self._gate = gate
        self._has_sessions = has_sessions
        self._budget = budget
        self._sleeper = sleeper
        self._make_signals = signals
        self._signals = signals()
        self._bus = bus
        self.views = record.views
        self.record = record
        self._woken = asyncio.Event()
        self._looked = 0.0
        self._next_beat = record.waking.began

    @property
    def seen(self) -> Seen:
        """The facts for a decision now."""
        return Seen(
            woke=self.record.waking.began,
            latest=self.record.latest,
            # Sessions outlive a suspend: an open one needs no new login.
            login=self.record.waking.logins > 0 or self._has_sessions(),
            connections=self._gate.arrivals > self.record.waking.arrivals,
            ordered=self.record.intent.ordered,
            warned=self.record.intent.warned,
        )

    @property
    def signal_names(self) -> set[str]:
        """The signals that are on; a login always counts."""
        return {"login"} | {signal.name for signal in self._signals}

    def decision(self) -> Decision:
        """The decision that follows from all that was seen so far."""
        return decide(self.seen, self._effective_settings(), clock())

    def _effective_settings(self) -> Settings:
        settings = self._current.value
        # A budget makes an empty machine sleep sooner; it never ends a session.
        if settings.idle_timeout is None or self._has_sessions() or not self._budget.is_over:
            return settings
        shorter = min(settings.idle_timeout, settings.budget_idle_timeout)
        return replace(settings, idle_timeout=shorter)

    def order_sleep(self, *, at_once: bool) -> None:
        """Order a sleep. Unless `at_once`, terminals are warned first; a login cancels it."""
        self.record.intent = Intent(ordered=clock(), at_once=at_once)
        self._woken.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._heartbeat()
            if clock() - self._looked >= SHORTEST_PAUSE:
                # A flood of leases wakes us, and a look costs something.
                await self._look_unless_compelled()
            self._judge_wake()
            decision = self.decision()
            match decision:
                case Awake():
                    self._stay_awake()
                case Warn() if not self.record.intent.at_once:
                    self._warn(decision)
                case Warn() | Sleep():
                    await self._sleep(decision)
                    continue
            await self._pause(decision)

    async def _heartbeat(self) -> None:
        if clock() >= self._next_beat:
            self._next_beat = clock() + BEAT
            await self._sleeper.journal.beat()

    async def _look_unless_compelled(self) -> None:
        """Look at the signals, unless a sleep is due that no activity can postpone."""
        looking = asyncio.create_task(self._look(), name="look")
        try:
            while not looking.done() and not self._is_compelled():
                await asyncio.wait([looking], timeout=COMPELLED_POLL)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    def _is_compelled(self) -> bool:
        """The limit is reached or an order is due, whatever is active."""
        decision = self.decision()
        due = isinstance(decision, Sleep) and decision.cause in COMPELLED
        return due or self.record.intent.at_once

    async def _look(self) -> None:
        self._looked = clock()
        for signal in self._signals:
            await self._look_at(signal)

    async def _look_at(self, signal: Signal) -> None:
        view = self.views.setdefault(signal.name, View())
        try:
            view.signs = await signal.look(clock())
        except Exception as error:
            problem = str(error) or repr(error)
            if view.problem is None:
                self._bus.publish(SignalFailed(signal=signal.name, problem=problem))
            view.problem = problem
            view.signs = (Sign(True, f"cannot be read, so it counts: {problem}"),)
        else:
            if view.problem is not None:
                view.problem = None
                self._bus.publish(SignalRecovered(signal=signal.name))
        for sign in view.signs:
            if sign.active:
                # Now, not when the look began: a look that hangs may take longer than the timeout.
                view.latest = self._active(signal.name, clock(), sign.because)
                break

    def _active(self, signal: str, at: float, because: str) -> Activity:
        activity = Activity(signal, at, because)
        if at >= self.record.latest.at:
            self.record.latest = activity
        return activity

    def hear(self, event: Event) -> None:
        """Count logins and leases as they happen."""
        if isinstance(event, SessionOpened):
            self.record.waking.logins += 1
            self.record.intent = Intent(warned=self.record.intent.warned)
            self._login(f"{event.user} logged in from {event.client}")
            self._judge_wake()
        elif isinstance(event, SessionClosed):
            self._login(f"{event.user} from {event.client}: {event.reason}")
        elif isinstance(event, LeaseTaken):
            self._active("lease", clock(), f"{event.lease} was taken")
            self._woken.set()
        elif isinstance(event, CodingTurnBegan):
            self._active("lease", clock(), f"{event.agent} began a turn")
        elif isinstance(event, SettingsChanged) and event.applied:
            self._active("settings", clock(), f"changed: {', '.join(event.applied)}")
            self._signals = self._make_signals()
            self._woken.set()

    def _login(self, because: str) -> None:
        view = self.views.setdefault("login", View())
        view.latest = self._active("login", clock(), because)

    def _judge_wake(self) -> None:
        """Report once what woke the machine: at a login, or when the window is over."""
        seconds = clock() - self.record.waking.began
        over = seconds >= (self._current.value.wake_window or LONGEST_WAKE)
        if self.record.waking.judged or not (self.record.waking.logins or over):
            return
        self.record.waking.judged = True
        reason = (
            "login" if self.record.waking.logins else "scan" if self.seen.connections else "start"
        )
        self._bus.publish(WakeJudged(reason=reason, seconds=seconds))

    def _stay_awake(self) -> None:
        if self.record.intent.warned is not None:
            self.record.intent.warned = None
            self._bus.publish(SleepCancelled(because=self.record.latest.because))

    def _warn(self, decision: Warn) -> None:
        if self.record.intent.warned is not None:
            return
        self.record.intent.warned = clock()
        seconds = decision.sleep_at - self.record.intent.warned
        reached = self._sleeper.tell_terminals(
            f"swarm-agent: this machine sleeps in {words.duration(seconds)} ({decision.because}).\n"
            "To stay: press a key, or type: swarm-agent awake --for 2h"
        )
        self._bus.publish(SleepWarned(because=decision.because, seconds=seconds, terminals=reached))

    async def _sleep(self, due: Warn | Sleep) -> None:
        """Wait for clients that are logging in, look once more, and sleep if nothing has changed.

        Programs of the account (checks, hooks that take a lease) postpone neither the limit nor
        an order: only a login cancels an order.
        """
        intent, compelled = self.record.intent, due.cause in COMPELLED
        if not intent.at_once:
            # Newcomers first: the last look must see activity during the wait for them.
            await self._wait_for_newcomers()
            if not compelled:
                await self._look()
            if not isinstance(self.decision(), Sleep):
                return
        arrivals, logins, latest = (
            self._gate.arrivals,
            self.record.waking.logins,
            self.record.latest,
        )

        def called_off() -> bool:
            if compelled:
                taken_back = self.record.intent is not intent and not intent.at_once
                return due.cause is Cause.HAND and taken_back
            # A login or a lease: both are reported as they happen.
            return self.record.latest is not latest

        if await self._sleeper.sleep(due.cause, due.because, called_off):
            self._resumed("resumed", arrivals, self.record.waking.logins - logins)
        else:
            self.record.intent = Intent()
            self._bus.publish(SleepCancelled(because=self.record.latest.because))

    async def _wait_for_newcomers(self) -> None:
        patience = clock() + self._current.value.login_grace_time
        while self._gate.undecided and clock() < patience:  # noqa: ASYNC110  # for once in a sleep
            await asyncio.sleep(NEWCOMER_POLL)

    def _resumed(self, because: str, arrivals: int, logins: int) -> None:
        """Start counting again: what was seen before the freeze says nothing about now.

        `arrivals` is the gate's count before the freeze; `logins` have happened since and still
        count.
        """
        self.record.waking = Waking(clock(), arrivals, logins)
        self.record.intent = Intent()
        self.record.latest = Activity("start", self.record.waking.began, because)
        self._bus.publish(Resumed(because=because))

    async def _pause(self, decision: Decision) -> None:
        now = clock()
        timeout = self._current.value.idle_timeout or LONGEST_PAUSE
        length = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, timeout / 20))
        next_step = decision.sleep_at if isinstance(decision, Warn) else None
        if isinstance(decision, Awake):
            next_step = decision.until
        if next_step is not None:
            length = min(length, max(0.0, next_step - now))
        with suppress(TimeoutError):
            async with asyncio.timeout(length):
                await self._woken.wait()
        self._woken.clear()
        late = clock() - now - length
        if late > FROZEN:
            because = f"the machine stood still for {words.duration(late)}"
            self._resumed(because, self._gate.arrivals, 0)
