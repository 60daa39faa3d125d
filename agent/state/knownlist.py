"""Networks that logged in before, as a small text file on the volume: read before SSH is open."""

import asyncio
from collections.abc import Callable

from agent.access.known import Known
from agent.bus import Bus
from agent.clock import clock
from agent.events import Event, SessionClosed, SessionOpened
from agent.network import Network
from agent.platform import volume
from agent.state.banlist import Clocks
from agent.state.page import Page

NAME = "known"

REST = 60.0
"""Seconds between two writes."""


def read(
    path: str, clocks: Clocks, on_replaced: Callable[[str, str], None]
) -> list[tuple[Network, float]]:
    """Each network and when it last logged in; empty without a list.

    A damaged list is set aside. Raises `OSError`, `volume.NotTrusted`.
    """
    with volume.own_folder(path, on_replaced) as folder:
        try:
            content = folder.read(NAME) or b""
            return [_parse(line, clocks) for line in content.decode("utf-8").splitlines()]
        except (ValueError, volume.NotTrusted) as error:
            kept_as = folder.set_aside(NAME)
            on_replaced(f"{folder.path}/{NAME}: {error}", f"{folder.path}/{kept_as}")
            return []


class KnownKeeper:
    """Writes the list when somebody logs in or out, at most once in `REST` seconds."""

    def __init__(self, known: Known, volume_path: str, bus: Bus) -> None:
        self._known = known
        self._page = Page(volume_path, NAME, bus)
        self._changed = asyncio.Event()
        bus.subscribe(self._hear, early=True)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.write()
            await asyncio.sleep(REST)

    async def write(self) -> None:
        """Write the list now."""
        now = clock()
        clocks = Clocks(now)
        lines = (f"{network}\t{clocks.to_date(at)}\n" for network, at in self._known.logins(now))
        await self._page.write("".join(lines))

    def _hear(self, event: Event) -> None:
        if isinstance(event, SessionOpened | SessionClosed):
            self._changed.set()


def _parse(line: str, clocks: Clocks) -> tuple[Network, float]:
    network, at = line.split("\t")
    return Network.parse(network), clocks.from_date(float(at))
