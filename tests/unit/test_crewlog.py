"""The history of coding agents in the database."""

import asyncio
import time

from agent.bus import Bus
from agent.events import CodingAgentChanged
from agent.state import crewlog
from agent.state.crewlog import CrewLog, CrewLogEntry
from agent.state.database import Database


def change(number: int) -> CodingAgentChanged:
    return CodingAgentChanged(
        agent=f"claude-{number}",
        tool="claude",
        folder="/w",
        state="working",
        need="",
        because="a turn runs",
        previous="waiting",
        seconds=1.0,
        works=True,
    )


def kept(changes: int) -> list[CrewLogEntry]:
    async def scene() -> list[CrewLogEntry]:
        bus = Bus()
        database = Database(None, [crewlog.SCHEMA], bus)
        log = CrewLog(database, bus)
        log.begin(early=True)
        for number in range(changes):
            bus.publish(change(number))
        found = await log.since(time.time() - 60)
        log.close()
        bus.publish(change(changes))
        assert await log.since(time.time() - 60) == found
        return found

    return asyncio.run(scene())


def test_the_latest_changes_come_first() -> None:
    assert [each.agent for each in kept(3)] == ["claude-2", "claude-1", "claude-0"]


def test_a_flood_writes_little() -> None:
    # A minute may begin while it runs.
    assert len(kept(5000)) <= 2 * crewlog.MOST_A_MINUTE
