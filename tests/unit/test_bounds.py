"""Everything that outsiders can make grow is bounded."""

import asyncio
from pathlib import Path

import pytest

from agent.bus import Bus
from agent.events import Event
from agent.idle.leasekeeper import LeaseKeeper, read
from agent.idle.leases import MOST
from agent.services.output import KEPT_BYTES, LINE_LIMIT, Lines, Ring
from agent.state.page import Page

pytestmark = pytest.mark.attack


def test_the_last_lines_of_a_service_are_bounded_in_bytes() -> None:
    async def main() -> None:
        ring = Ring(Lines())
        for number in range(1000):
            ring.add(float(number), "stdout", "x" * LINE_LIMIT)
        kept = ring.after(0)
        assert sum(len(line.text) for line in kept) <= KEPT_BYTES
        assert kept[-1].number == 1000

    asyncio.run(main())


def test_a_storm_of_leases_is_written_once_a_second_and_nothing_is_forgotten(
    tmp_path: Path,
) -> None:
    heard: list[Event] = []

    class Counting(Page):
        writes = 0

        def _write(self, text: str) -> None:
            Counting.writes += 1
            super()._write(text)

    async def main() -> None:
        bus = Bus()
        bus.subscribe(heard.append)
        page = Counting(str(tmp_path), "leases", bus)
        keeper = LeaseKeeper(page, read(page), bus)
        for number in range(500):
            await keeper.take(f"lease-{number % MOST}", 1000.0, None)
        assert Counting.writes <= 2
        while Counting.writes < 2 or page.behind:  # noqa: ASYNC110  # it is written once
            await asyncio.sleep(0.05)
        again = LeaseKeeper(page, read(page), bus)
        assert {lease.name for lease in again.active()} == {f"lease-{n}" for n in range(MOST)}

    asyncio.run(main())
