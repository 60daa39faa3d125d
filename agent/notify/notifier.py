"""Sends messages to people: receives events, keeps pending letters, starts the sending process.

`news` and `outbox` decide; this module has the clocks, the page and the process.
"""

import asyncio
import os
import sys
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from agent import unnamed
from agent.bus import Bus
from agent.clock import clock
from agent.events import Event, NewsNotSent, NewsSent
from agent.idle.budget import this_month
from agent.init.children import Children, Credentials, NotDone, clean_environment
from agent.notify import outbox
from agent.notify.news import Known, News, NewsDesk
from agent.notify.outbox import Letter, Outbox
from agent.notify.send import Answer, Order
from agent.settings.current import Current
from agent.state.page import Page

VARIABLE = "SWARM_NOTIFY"
NAME = "notify"

PATIENCE = 30.0
"""Seconds that sending may take, to all addresses together."""

FAREWELL = 8.0
"""Seconds that the machine waits for the last letter before it sleeps."""

READINGS = 60.0
"""Seconds between two readings of the budget and the volume."""

SOON = 0.5
"""Seconds during which news are collected into one letter."""

TEST_REST = 10.0
"""Seconds between two test messages."""

MOST_ADDRESSES = 20
OUTPUT_LIMIT = 64 << 10
_NOBODY = Credentials(65534, 65534, ())


class _Kept(msgspec.Struct, frozen=True):
    """The contents of the page: known facts and pending letters."""

    known: Known
    outbox: outbox.Kept


@dataclass(frozen=True, slots=True)
class NotifyRecord:
    """The desk that makes the news, and the pending letters."""

    desk: NewsDesk
    outbox: Outbox


class TooSoon(Exception):
    """A test message was sent a moment ago."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for one address: its line in the secret, its scheme, and the problem, if any."""

    line: int
    kind: str
    problem: str


@dataclass(frozen=True, slots=True)
class Readings:
    """The used shares of the budget (of `month`) and of the volume."""

    budget_used: float
    month: str
    volume_used: float

    @classmethod
    def of(cls, budget_used: float, volume: str) -> "Readings":
        """The readings of this moment."""
        return cls(budget_used, this_month(), _used(volume))


class Notifier:
    """Sends messages to `addresses`: Apprise's URLs, which are secrets.

    `allow` lets processes connect to hosts with these names, if connections are restricted.
    """

    def __init__(
        self,
        record: NotifyRecord,
        addresses: Sequence[str],
        machine: str,
        current: Current,
        children: Children,
        page: Page,
        readings: Callable[[], Readings],
        allow: Callable[[Iterable[str]], Awaitable[None]] | None,
        bus: Bus,
    ) -> None:
        self._addresses = {zlib.crc32(each.encode()): each for each in addresses}
        self._desk = record.desk
        self._outbox = record.outbox
        self._machine = machine
        self._current = current
        self._children = children
        self._page = page
        self._readings = readings
        self._allow = allow
        self._bus = bus
        self._woken = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._troubled: set[int] = set()
        self._next_test = 0.0
        self._saved = self._desk.known, self._outbox.kept()
        if self._addresses:
            bus.subscribe(self._hear, early=True)

    async def run(self) -> None:
        """Send messages until cancelled."""
        if not self._addresses:
            return
        if self._allow is not None:
            await self._allow(await self.hosts())
        next_readings = 0.0
        while True:
            now = clock()
            if now >= next_readings:
                next_readings = now + READINGS
                seen = self._readings()
                self._take(self._desk.readings(seen.budget_used, seen.month, seen.volume_used))
            self._take(self._desk.waits(now, self._current.value.notify_wait))
            await self._send_due()
            await self._keep()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause(next_readings)):
                    await self._woken.wait()
                    await asyncio.sleep(SOON)
            self._woken.clear()

    async def farewell(self) -> None:
        """Send pending letters before the machine sleeps; the rest waits for the next run."""
        if not self._addresses:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self._send_due()
        await self._keep()

    async def test(self) -> list[Outcome]:
        """Send a letter to all addresses. Returns the result of each. Raises `TooSoon`."""
        if clock() < self._next_test:
            raise TooSoon(f"a test was just sent: try again in {TEST_REST:g} s")
        self._next_test = clock() + TEST_REST
        says = f"this is a test: {self._machine} can reach you"
        return await self._send(says, list(self._addresses.items()))

    async def hosts(self) -> set[str]:
        """The names of the hosts that sending needs."""
        answers = await self._ask("", list(self._addresses.values()))
        return {host for answer in answers for host in answer["hosts"]}

    def _hear(self, event: Event) -> None:
        self._take(self._desk.hear(event, clock(), self._current.value.notify_done))
        if self._desk.due(self._current.value.notify_wait) is not None:
            self._woken.set()

    def _take(self, news: Sequence[News]) -> None:
        wanted = [each for each in news if each.kind in self._current.value.notify_about]
        if wanted:
            self._outbox.add(wanted, time.time())
            self._woken.set()

    async def _send_due(self) -> None:
        async with self._one_at_a_time:
            settings = self._current.value
            quiet = settings.notify_quiet is not None and settings.notify_quiet.hold(time.time())
            self._outbox.seal(time.time(), quiet=quiet, details=settings.notify_details)
            for letter in self._outbox.ready(time.time()):
                await self._deliver(letter)

    async def _deliver(self, letter: Letter) -> None:
        known = self._addresses
        to = {each: known[each] for each in (letter.to or known) if each in known}
        outcomes = await self._send(letter.says, list(to.items()))
        failed = [number for number, each in zip(to, outcomes, strict=True) if each.problem]
        if failed:
            self._outbox.failed(letter, failed, time.time())
        else:
            self._outbox.sent(letter)

    async def _send(self, says: str, to: Sequence[tuple[int, str]]) -> list[Outcome]:
        answers = await self._ask(says, [url for _, url in to])
        lines = {number: line for line, number in enumerate(self._addresses, 1)}
        outcomes = []
        for (number, _), answer in zip(to, answers, strict=True):
            outcome = Outcome(lines[number], answer["kind"], answer["problem"])
            outcomes.append(outcome)
            self._report(number, outcome)
        return outcomes

    def _report(self, number: int, outcome: Outcome) -> None:
        """Report the problem of an address once, until it works again."""
        if not outcome.problem:
            self._troubled.discard(number)
            self._bus.publish(NewsSent(line=outcome.line, kind=outcome.kind))
        elif number not in self._troubled:
            self._troubled.add(number)
            self._bus.publish(
                NewsNotSent(line=outcome.line, kind=outcome.kind, problem=outcome.problem)
            )

    async def _ask(self, says: str, urls: Sequence[str]) -> list[Answer]:
        """Have the sending process carry out an order; if it fails, every address has failed."""
        order: Order = {"urls": list(urls), "title": self._machine, "says": says}
        try:
            said = await self._run(msgspec.json.encode(order))
            answers = msgspec.json.decode(said, type=list[Answer])
            if len(answers) == len(urls):
                return answers
            problem = "the sending process gave no answer"
        except NotDone:
            problem = f"not done within {PATIENCE:g} s"
        except (OSError, ValueError):  # msgspec's errors are of this kind
            # The error text could contain an address.
            problem = "the sending process has failed"
        return [{"kind": "?", "problem": problem, "hosts": []} for _ in urls]

    async def _run(self, order: bytes) -> bytes:
        asked = unnamed.write(order, self._current.value.run_dir)
        try:
            done = await self._children.run(
                [sys.executable, "-m", "agent.notify.send"],
                env=clean_environment() | {"HOME": "/nonexistent"},
                patience=PATIENCE,
                keep=OUTPUT_LIMIT,
                stdin=asked,
                cwd="/",
                run_as=_NOBODY if os.geteuid() == 0 else None,
            )
        finally:
            os.close(asked)
        return done.output

    async def _keep(self) -> None:
        now = self._desk.known, self._outbox.kept()
        if now != self._saved or self._page.behind:
            self._saved = now
            await self._page.write(msgspec.json.encode(_Kept(*now)).decode())

    def _pause(self, next_readings: float) -> float:
        now, wall = clock(), time.time()
        pauses = [next_readings - now]
        waits = self._desk.due(self._current.value.notify_wait)
        if waits is not None:
            pauses.append(waits - now)
        due = self._outbox.due(wall)
        if due is not None:
            # In quiet hours pending letters are due all the time.
            pauses.append(max(5.0, due - wall))
        return max(0.05, min(pauses))


def page(volume_path: str, bus: Bus) -> Page:
    """The notifier's page on this volume."""
    return Page(volume_path, NAME, bus)


def read(page: Page) -> NotifyRecord:
    """The state that earlier runs have left on the volume."""
    nothing = _Kept(Known(), outbox.Kept())

    def parse(text: str) -> _Kept:
        return msgspec.json.decode(text, type=_Kept)

    kept = page.read(parse, nothing)
    return NotifyRecord(NewsDesk(kept.known), Outbox(kept.outbox))


def _used(path: str) -> float:
    try:
        status = os.statvfs(path)
    except OSError:
        return 0.0  # no volume: nothing fills up
    return 1 - status.f_bavail / status.f_blocks if status.f_blocks else 0.0


def machine_name(environ: Mapping[str, str]) -> str:
    """The machine's name for people."""
    return environ.get("FLY_APP_NAME") or os.uname().nodename


def addresses_in(environ: Mapping[str, str]) -> list[str]:
    """The addresses in the secret, one a line."""
    lines = [line.strip() for line in environ.get(VARIABLE, "").splitlines()]
    return [line for line in lines if line and not line.startswith("#")][:MOST_ADDRESSES]
