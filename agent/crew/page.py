"""Who is at work, kept on the volume: after a stop, the next login says who was cut off."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.bus import Bus
from agent.state.page import Page

NAME = "agents"

REST = 5.0
"""Seconds between two writings: states change often, and only the last ones matter."""


@dataclass(frozen=True, slots=True)
class Line:
    """A coding agent in words: who, what, whether it worked, and whether it asked something."""

    who: str
    what: str
    worked: bool
    asked: bool

    @property
    def counts(self) -> bool:
        """Its end has cut something off."""
        return self.worked or self.asked


class CrewPage:
    """The page; what is kept is written soon, while `run` runs."""

    def __init__(self, page: Page, cut_off: Sequence[Line]) -> None:
        self._page = page
        self._cut_off = cut_off
        self._changed = asyncio.Event()
        self._text: str | None = None

    def cut_off(self) -> list[str]:
        """What a login should know of the agents that the end of the previous run cut off."""
        return [
            f"{line.who} was cut off when the machine stopped: {line.what}."
            for line in self._cut_off
            if line.counts
        ]

    def keep(self, lines: Iterable[Line]) -> None:
        """Have these written soon."""
        text = "".join(map(_text, lines))
        if text != self._text:
            self._text = text
            self._changed.set()

    async def run(self) -> None:
        """Write what has changed until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._page.write(self._text or "")
            await asyncio.sleep(REST)


def page(volume_path: str, bus: Bus) -> Page:
    """Where it is kept."""
    return Page(volume_path, NAME, bus)


def read(page: Page) -> tuple[Line, ...]:
    """Who was at work when the previous run ended."""
    nothing: tuple[Line, ...] = ()
    return page.read(_parse, nothing)


def _text(line: Line) -> str:
    return f"{line.who}\t{line.what}\t{int(line.worked)}\t{int(line.asked)}\n"


def _parse(text: str) -> tuple[Line, ...]:
    return tuple(_parse_line(line.split("\t")) for line in text.splitlines())


def _parse_line(cells: Sequence[str]) -> Line:
    who, what, worked, asked = cells
    return Line(who, what, worked == "1", asked == "1")
