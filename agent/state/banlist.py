"""The bans that hold, as a small text file on the volume: what the boot reads instead of SQLite.

Somebody waits at the gate, the disk is slow, and SQLite is 1.7 MB to read; the list is a page. The
database stays the memory of bans: it is opened when the first client was served, and what the list
has missed is taken from there.
"""

import sys
import time
from collections.abc import Callable, Iterable

from agent.access.values import Ban
from agent.network import Network
from agent.platform import volume

NAME = "bans"
LONGEST = 10_000
"""Bans in the list; the latest ones. The rest are loaded a moment after the boot."""


LARGEST = 4 << 20
"""Bytes of a list of that many bans, whatever their addresses and reasons."""


class Clocks:
    """Between dates (Unix time), which are kept, and the jail's clock, which never steps."""

    def __init__(self, jail_now: float) -> None:
        self._wall = time.time()
        self._offset = jail_now - self._wall

    def to_jail(self, network: str, since: float, until: float, times: int, reason: str) -> Ban:
        """A kept ban. A wall clock that was set back since makes it no longer than it was."""
        late = max(0.0, since - self._wall)
        shift = self._offset - late
        # Of a million bans most have the same words.
        same = sys.intern(reason)
        return Ban(Network.parse(network), since + shift, until + shift, times, same)

    def from_date(self, at: float) -> float:
        """A date on the jail's clock; one in the future counts as now."""
        return min(at, self._wall) + self._offset

    def to_date(self, at: float) -> float:
        """The date of a time on the jail's clock."""
        return at - self._offset

    def to_row(self, ban: Ban) -> tuple[str, float, float, int, str]:
        """A ban as it is kept."""
        since, until = ban.since - self._offset, ban.until - self._offset
        return str(ban.network), since, until, ban.times, ban.reason


Row = tuple[str, float, float, int, str]


def read(path: str, clocks: Clocks, on_replaced: Callable[[str, str], None]) -> list[Ban]:
    """The bans of the list on the volume at `path`; empty without a list.

    One that is damaged is set aside: the database knows them too. Raises `OSError`,
    `volume.NotTrusted`.
    """
    with volume.own_folder(path, on_replaced) as folder:
        try:
            content = folder.read(NAME, LARGEST) or b""
            return [_parse(line, clocks) for line in content.decode("utf-8").splitlines()]
        except (ValueError, volume.NotTrusted) as error:
            kept_as = folder.set_aside(NAME)
            on_replaced(f"{folder.path}/{NAME}: {error}", f"{folder.path}/{kept_as}")
            return []


def write(path: str, rows: Iterable[Row], on_replaced: Callable[[str, str], None]) -> None:
    """Replace the list as a whole. Raises `OSError`, `volume.NotTrusted`."""
    latest = sorted(rows, key=lambda row: row[1])[-LONGEST:]
    text = "".join("\t".join(map(str, row)) + "\n" for row in latest)
    with volume.own_folder(path, on_replaced) as folder:
        folder.write(NAME, text.encode("utf-8"))


def _parse(line: str, clocks: Clocks) -> Ban:
    network, since, until, times, reason = line.split("\t")
    return clocks.to_jail(network, float(since), float(until), int(times), reason)
