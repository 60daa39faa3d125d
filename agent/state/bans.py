"""Stores bans: in the state database, and in the list that the next boot reads."""

import sqlite3
from contextlib import suppress
from functools import partial

from agent.access.jail import Jail
from agent.access.values import Ban
from agent.bus import Bus
from agent.events import BanLifted, BanStarted, Event
from agent.network import Network
from agent.platform import volume
from agent.state import banlist
from agent.state.banlist import Clocks, Row
from agent.state.database import Change, Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS bans (
    network TEXT PRIMARY KEY,
    since REAL NOT NULL,   -- Unix time
    until REAL NOT NULL,
    times INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT
"""
INDEX = "CREATE INDEX IF NOT EXISTS bans_since ON bans (since, network)"
AT_ONCE = 500
"""Rows that are handled in one step of the event loop."""

_BEFORE_ALL: Row = ("", -1e300, 0.0, 0, "")

_SELECT = "SELECT network, since, until, times, reason FROM bans"
_INSERT = "INSERT OR REPLACE INTO bans VALUES (?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM bans WHERE network = ?"


class BanStore:
    """Stores bans from `begin` until `close`. `volume_path`: the volume of the list, if any."""

    def __init__(self, database: Database, volume_path: str | None, jail: Jail, bus: Bus) -> None:
        self._database = database
        self._volume = volume_path
        self._jail = jail
        self._bus = bus
        self._list_is_old = False
        self._lifted: set[str] | None = None
        """Bans lifted while earlier bans are being read."""

    async def begin(self, clocks: Clocks) -> None:
        """Give the jail the bans that the boot's list lacks, and store changes from now on."""
        lifted = self._lifted = set()
        self._bus.subscribe(self._hear)
        unkept = {ban.network for ban in self._jail.all() if not ban.dry_run}
        after = _BEFORE_ALL
        # A million bans must delay no login, and never be in memory twice.
        while rows := await self._database.read(partial(_some_rows, after)):
            for row in rows:
                with suppress(ValueError):  # an invalid row does not cost the valid ones
                    self._know_again(clocks.to_jail(*row), unkept, lifted)
            after = rows[-1]
        bans = filter(None, map(self._jail.get, unkept))
        self._keep([(_INSERT, clocks.to_row(ban)) for ban in bans])
        self._lifted = None

    def _know_again(self, ban: Ban, unkept: set[Network], lifted: set[str]) -> None:
        unkept.discard(ban.network)
        if str(ban.network) not in lifted:
            # Also bans it knows already: the jail keeps them in order of arrival.
            self._jail.restore(self._jail.get(ban.network) or ban)

    def retry(self) -> None:
        """Write the list if that failed before."""
        if self._list_is_old:
            self._database.later(self._write_list)

    def close(self) -> None:
        """Stop storing."""
        self._bus.unsubscribe(self._hear)

    def _hear(self, event: Event) -> None:
        if isinstance(event, BanStarted) and not event.dry_run:
            row = (event.network, event.at, event.at + event.seconds, event.times, event.reason)
            self._keep([(_INSERT, row)])
        elif isinstance(event, BanLifted):
            if self._lifted is not None:
                self._lifted.add(event.network)
            self._keep([(_DELETE, (event.network,))])

    def _keep(self, changes: list[Change]) -> None:
        self._database.write(changes)
        if self._volume is not None:
            self._list_is_old = True
            self._database.later(self._write_list)

    def _write_list(self) -> None:
        if self._volume is None or not self._list_is_old:
            return
        rows = self._database.attempt(_latest_rows)
        if rows is None:
            return
        try:
            self._list_is_old = False
            banlist.write(self._volume, rows, self._database.tell_replaced)
        except (OSError, volume.NotTrusted) as error:
            self._list_is_old = True
            where = f"{self._volume}/{volume.FOLDER}/{banlist.NAME}"
            self._database.tell_not_kept(f"{where}: {error}")


def _some_rows(after: Row, database: sqlite3.Connection) -> list[Row]:
    query = f"{_SELECT} WHERE (since, network) > (?, ?) ORDER BY since, network LIMIT ?"
    return database.execute(query, (after[1], after[0], AT_ONCE)).fetchall()


def _latest_rows(database: sqlite3.Connection) -> list[Row]:
    query = f"{_SELECT} ORDER BY since DESC LIMIT ?"
    return database.execute(query, (banlist.LONGEST,)).fetchall()
