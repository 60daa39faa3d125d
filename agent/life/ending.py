"""How the agent ends: a stop signal, the end of the command, a sleep, or a reload.

A leaf: whoever may end the machine (idle, services) needs this and nothing else of `agent/life/`.
"""

import asyncio
import os
import signal
from dataclasses import dataclass

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


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
    """The agent re-executes in place: it reads everything again, and nothing ends."""


@dataclass(frozen=True, slots=True)
class StopRecord:
    """The ending that was decided, the stop signal that came, and whether a second one did."""

    ending: Ending | None
    signal: signal.Signals | None
    hurry: bool


class Stop:
    """Waits for a reason to stop; a second stop signal sets `hurry`: stop now."""

    def __init__(self, record: StopRecord) -> None:
        loop = asyncio.get_running_loop()
        self._decision: asyncio.Future[Ending | Reload] = loop.create_future()
        self._late: Ending | None = None
        """An ending requested while a reload was pending."""
        self.hurry = asyncio.Event()
        self.signal = record.signal
        if record.hurry:
            self.hurry.set()
        if record.ending is not None:
            self.because(record.ending)
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        if os.isatty(0):
            # Whoever started it by hand has closed the terminal.
            loop.add_signal_handler(signal.SIGHUP, self._signalled, signal.SIGHUP)
        else:
            # Without a handler it would end the machine's init.
            loop.add_signal_handler(signal.SIGHUP, lambda: None)

    @classmethod
    def start(cls) -> "Stop":
        """Nothing was requested yet."""
        return cls(StopRecord(None, None, hurry=False))

    def hold(self) -> StopRecord:
        """What was requested so far."""
        decision = self._decision.result() if self._decision.done() else None
        ending = decision if isinstance(decision, Ending) else self._late
        return StopRecord(ending, self.signal, self.hurry.is_set())

    def because(self, ending: Ending) -> None:
        """Stop now; only the first ending counts."""
        if not self._decision.done():
            self._decision.set_result(ending)
        elif isinstance(self._decision.result(), Reload) and self._late is None:
            self._late = ending

    def reload(self) -> None:
        """Re-execute in place, unless the machine is about to end."""
        if not self._decision.done():
            self._decision.set_result(Reload())

    async def wait(self) -> Ending | Reload:
        """Wait for the first decision."""
        return await asyncio.shield(self._decision)

    def _signalled(self, number: signal.Signals) -> None:
        if self.signal is not None:
            self.hurry.set()
        self.signal = number
        self.because(Ending.stopping(number.name))
