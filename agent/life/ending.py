"""How the agent ends: a stop signal, the end of the command, a sleep, or a reload.

A leaf: parts that may end the machine (idle, services) import nothing else of `agent/life/`.
"""

import asyncio
import os
from dataclasses import dataclass
from signal import SIGHUP, SIGINT, SIGTERM, Signals

STOP_SIGNALS = (SIGTERM, SIGINT)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the machine ends, what its terminals show, and the exit status (None: the command's).

    A sleep exits with 0 whatever the command of `run --` returns: for any other status the
    platform would restart the machine.
    """

    reason: str
    farewell: str
    status: int | None = None

    @classmethod
    def stopping(cls, reason: str) -> "Ending":
        """An ending requested from outside, or caused by a failure."""
        return cls(reason, f"swarm-agent: this machine is stopping ({reason}); your session ends.")


@dataclass(frozen=True, slots=True)
class Reload:
    """The agent re-executes in place: it re-reads all settings, and nothing ends."""


@dataclass(slots=True)
class StopRecord:
    """The ending that was requested first, the latest stop signal, and whether it was a second."""

    ending: Ending | None = None
    signal: Signals | None = None
    hurry: bool = False


class Stop:
    """Waits for a reason to stop; a second stop signal sets `hurry`: stop now."""

    def __init__(self, record: StopRecord) -> None:
        loop = asyncio.get_running_loop()
        self._record = record
        self._decision: asyncio.Future[Ending | Reload] = loop.create_future()
        self.hurry = asyncio.Event()
        if record.hurry:
            self.hurry.set()
        if record.ending is not None:
            self._decision.set_result(record.ending)
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        if os.isatty(0):
            # It was started by hand, and its terminal was closed.
            loop.add_signal_handler(SIGHUP, self._signalled, SIGHUP)
        else:
            # Without a handler it would end the machine's init.
            loop.add_signal_handler(SIGHUP, lambda: None)

    @property
    def signal(self) -> Signals | None:
        """The latest stop signal."""
        return self._record.signal

    def because(self, ending: Ending) -> None:
        """Stop now, or after the reload that is pending; only the first ending counts."""
        if self._record.ending is None:
            self._record.ending = ending
        if not self._decision.done():
            self._decision.set_result(ending)

    def reload(self) -> None:
        """Re-execute in place, unless the machine is about to end."""
        if not self._decision.done():
            self._decision.set_result(Reload())

    async def wait(self) -> Ending | Reload:
        """Wait for the first decision."""
        return await asyncio.shield(self._decision)

    def _signalled(self, number: Signals) -> None:
        if self._record.signal is not None:
            self._record.hurry = True
            self.hurry.set()
        self._record.signal = number
        self.because(Ending.stopping(number.name))
