"""Leases that survive the agent: they are kept in a small file on the volume."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from agent import words
from agent.bus import Bus
from agent.clock import clock
from agent.events import LeaseEnded, LeaseTaken
from agent.idle.leases import Holder, Lease, LeaseError, Leases
from agent.idle.signals.sign import Sign
from agent.init import proctree
from agent.state.page import Page

NAME = "leases"

REST = 1.0
"""Seconds between two writes of the page."""

_NOBODY = Holder(0, 0)


class LeaseKeeper:
    """Takes and releases leases, keeps them on the volume, and is the signal `lease`."""

    name = "lease"

    def __init__(self, page: Page, book: Leases, bus: Bus) -> None:
        self._bus = bus
        self._page = page
        self._book = book
        self._rests_until = 0.0
        self._later: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self.derived: Callable[[float], Sequence[Lease]] = lambda _: ()
        """Leases that follow from another state; nobody takes or releases them."""

    async def take(self, name: str, seconds: float, holder_pid: int | None) -> Lease:
        """Hold the machine awake for `seconds`, but not longer than the holder runs.

        Raises `LeaseError`. The lease is on the volume when this returns, or within `REST` seconds
        if leases are taken in quick succession.
        """
        now = clock()
        holder = None if holder_pid is None else _holder(holder_pid)
        lease = Lease(name, now, now + seconds, holder)
        self._book.take(lease)
        self._bus.publish(LeaseTaken(lease=name, seconds=seconds, pid=holder_pid))
        await self._keep()
        return lease

    async def release(self, name: str) -> bool:
        """End a lease; False if no lease has that name."""
        lease = self._book.release(name)
        if lease is None:
            return False
        await self._ended([lease], "released")
        return True

    def active(self) -> list[Lease]:
        """The active leases, the longest first."""
        return self._active(clock())

    def taken(self) -> list[Lease]:
        """The active leases that somebody took."""
        return self._book.active(clock())

    def _active(self, now: float) -> list[Lease]:
        held = [lease for lease in self.derived(now) if lease.until > now]
        return sorted([*self._book.active(now), *held], key=lambda lease: -lease.until)

    async def look(self, now: float) -> list[Sign]:
        """One sign for each active lease."""
        over = self._book.expire(now)
        if over:
            await self._ended(over, "over")
        elif self._page.behind:
            await self._keep()
        return [Sign(True, says(lease, now)) for lease in self._active(now)]

    async def _ended(self, leases: Sequence[Lease], reason: str) -> None:
        for lease in leases:
            self._bus.publish(LeaseEnded(lease=lease.name, reason=reason))
        await self._keep()

    def _text(self) -> str:
        offset, boot = time.time() - clock(), _boot_id()
        lines = []
        for lease in self.taken():
            holder = lease.holder or _NOBODY
            times = (lease.since + offset, lease.until + offset)
            lines.append(
                "\t".join(map(str, (lease.name, *times, holder.pid, holder.started, boot)))
            )
        return "".join(line + "\n" for line in lines)

    async def _keep(self) -> None:
        """Write the page, at most once in `REST` seconds, to spare the disk."""
        now = clock()
        if self._later is not None:
            return
        if now >= self._rests_until:
            self._rests_until = now + REST
            await self._page.write(self._text())
        else:
            loop = asyncio.get_running_loop()
            self._later = loop.call_later(self._rests_until - now, self._write_later)

    def _write_later(self) -> None:
        self._later = None
        self._writing = asyncio.create_task(self._keep(), name="leases")


def page(volume_path: str, bus: Bus) -> Page:
    """The file of leases."""
    return Page(volume_path, NAME, bus)


def read(page: Page) -> Leases:
    """The book, with the leases of earlier runs that still hold."""
    nothing: list[Lease] = []
    book = Leases(_runs)
    for lease in page.read(_parse, nothing):
        if lease.until > clock():
            with suppress(LeaseError):  # an invalid name, or one lease too many
                book.take(lease)
    return book


def says(lease: Lease, now: float) -> str:
    """A lease in the user's words."""
    if lease.because:
        return lease.because
    if lease.holder is not None:
        return f"{lease.name}: while pid {lease.holder.pid} runs"
    return f"{lease.name}: {words.duration(lease.until - now)} more"


def _parse(text: str) -> list[Lease]:
    return [_parse_line(line) for line in text.splitlines()]


def _parse_line(line: str) -> Lease:
    name, since, until, pid, started, boot = line.split("\t")
    now = clock()
    shift = now - time.time()
    # If the wall clock was set back since, the lease does not get longer.
    shift -= max(0.0, float(since) + shift - now)
    holder = None
    if int(pid):
        # After another boot of the kernel the process is gone, whatever has its id now.
        holder = Holder(int(pid), int(started) if boot == _boot_id() else -1)
    return Lease(name, float(since) + shift, float(until) + shift, holder)


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _holder(pid: int) -> Holder:
    process = proctree.read_process(pid)
    return Holder(pid, -1 if process is None else process.started)


def _runs(holder: Holder) -> bool:
    process = proctree.read_process(holder.pid)
    return process is not None and process.started == holder.started and process.state not in "ZX"
