"""Keeps on the volume which coding agents are at work.

After a stop, the next login shows which of them were cut off.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.bus import Bus
from agent.state.page import Page

NAME = "agents"

REST = 5.0
"""Seconds between two writes: states change often, and only the latest matter."""


@dataclass(frozen=True, slots=True)
class Line:
    """A coding agent in words: who, what, whether it worked, and whether it asked something."""

    who: str
    what: str
    worked: bool
    asked: bool

    @property
    def counts(self) -> bool:
        """Its end interrupted work or a question."""
        return self.worked or self.asked


class CrewPage:
    """The page on the volume. Changes are written soon, while `run` runs."""

    def __init__(self, page: Page, cut_off: Sequence[Line]) -> None:
        self._page = page
        self._cut_off = cut_off
        self._changed = asyncio.Event()
        self._text: str | None = None

    def cut_off(self) -> list[str]:
        """Lines for the greeting about agents that the end of the previous run cut off."""
        return [
            f"{line.who} was cut off when the machine stopped: {line.what}."
            for line in self._cut_off
            if line.counts
        ]

    def keep(self, lines: Iterable[Line]) -> None:
        """Keep these lines; they are written soon."""
        text = "".join(map(_text, lines))
        if text != self._text:
            self._text = text
            self._changed.set()

    async def run(self) -> None:
        """Write changes until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._page.write(self._text or "")
            await asyncio.sleep(REST)


def page(volume_path: str, bus: Bus) -> Page:
    """The page on this volume."""
    return Page(volume_path, NAME, bus)


def read(page: Page) -> tuple[Line, ...]:
    """The coding agents at the end of the previous run."""
    nothing: tuple[Line, ...] = ()
    return page.read(_parse, nothing)


def _text(line: Line) -> str:
    return f"{line.who}\t{line.what}\t{int(line.worked)}\t{int(line.asked)}\n"


def _parse(text: str) -> tuple[Line, ...]:
    return tuple(_parse_line(line.split("\t")) for line in text.splitlines())


def _parse_line(cells: Sequence[str]) -> Line:
    who, what, worked, asked = cells
    return Line(who, what, worked == "1", asked == "1")
