"""The active bans, as a small text file on the volume: the boot reads it instead of SQLite.

At boot a client waits, the disk is slow, and SQLite is 1.7 MB to read; the list is one page. The
database remains the record of bans: it is opened after the first client was served, and bans that
the list lacks are read from it.
"""

import sys
import time
from collections.abc import Callable, Iterable

from agent.access.values import Ban
from agent.network import Network
from agent.platform import volume

NAME = "bans"
LONGEST = 10_000
"""The most bans in the list, the latest ones. The rest are loaded soon after the boot."""


LARGEST = 4 << 20
"""The largest size of such a list in bytes, whatever the addresses and reasons."""


class Clocks:
    """Converts between stored dates (Unix time) and the jail's clock, which never steps."""

    def __init__(self, jail_now: float) -> None:
        self._wall = time.time()
        self._offset = jail_now - self._wall

    def to_jail(self, network: str, since: float, until: float, times: int, reason: str) -> Ban:
        """A stored ban. If the wall clock was set back since, the ban does not get longer."""
        late = max(0.0, since - self._wall)
        shift = self._offset - late
        # Most of a million bans have the same reason.
        same = sys.intern(reason)
        return Ban(Network.parse(network), since + shift, until + shift, times, same)

    def from_date(self, at: float) -> float:
        """A date on the jail's clock; one in the future counts as now."""
        return min(at, self._wall) + self._offset

    def to_date(self, at: float) -> float:
        """The date of a time on the jail's clock."""
        return at - self._offset

    def to_row(self, ban: Ban) -> tuple[str, float, float, int, str]:
        """A ban as it is stored."""
        since, until = ban.since - self._offset, ban.until - self._offset
        return str(ban.network), since, until, ban.times, ban.reason


Row = tuple[str, float, float, int, str]


def read(path: str, clocks: Clocks, on_replaced: Callable[[str, str], None]) -> list[Ban]:
    """The bans of the list on the volume at `path`; empty without a list.

    A damaged list is set aside: the database has the bans too. Raises `OSError`,
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
