"""The page of known networks: complete, or set aside."""

import asyncio
from pathlib import Path

from agent.access.known import Known
from agent.bus import Bus
from agent.network import Network
from agent.state import knownlist
from agent.state.banlist import Clocks

A, B = Network.host("203.0.113.1"), Network.parse("2001:db8::/64")


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    known = Known()
    known.restore([(A, 50.0), (B, 90.0)], 100.0)

    async def main() -> None:
        bus = Bus()
        keeper = knownlist.KnownKeeper(known, str(tmp_path), bus)
        await keeper.write()

    asyncio.run(main())
    replaced: list[str] = []
    found = knownlist.read(str(tmp_path), Clocks(100.0), lambda why, _: replaced.append(why))
    assert replaced == []
    assert {network for network, _ in found} == {A, B}


def test_a_page_that_is_damaged_is_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / ".swarm"
    folder.mkdir(mode=0o700)
    page = folder / "known"
    page.write_text("203.0.113.1\t1.0\nnot a network\n")
    page.chmod(0o600)
    replaced: list[str] = []
    assert knownlist.read(str(tmp_path), Clocks(0.0), lambda why, _: replaced.append(why)) == []
    assert len(replaced) == 1
    assert not page.exists()


def test_a_page_that_is_too_large_is_set_aside_and_never_read_in_part(tmp_path: Path) -> None:
    folder = tmp_path / ".swarm"
    folder.mkdir(mode=0o700)
    page = folder / "known"
    page.write_text("203.0.113.1\t1.0\n" * 200_000)
    page.chmod(0o600)
    replaced: list[str] = []
    assert knownlist.read(str(tmp_path), Clocks(0.0), lambda why, _: replaced.append(why)) == []
    assert "larger than" in replaced[0]
