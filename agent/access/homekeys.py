"""Keys in the login account's home: not accepted, as `keys` and the greeting explain.

`ssh-copy-id` writes into `~/.ssh/authorized_keys` and reports success. Keys come from outside the
machine only, so the next login with that key is refused. The file is read as the login account.
"""

import asyncio
import os

from agent.access.keyring import Keyring
from agent.access.keys import AuthorizedKey, parse
from agent.bus import Bus
from agent.events import Event, Notice, SessionClosed
from agent.init.children import Children, NotDone
from agent.platform.account import Account, credentials_of, environment_of

PLACES = (".ssh/authorized_keys", ".ssh/authorized_keys2")
LIMIT = 32768
"""Bytes of each file that are read."""

PATIENCE = 5.0
MOST_NAMED = 3

WHAT_COUNTS = (
    "put the line into the secret SSH_AUTHORIZED_KEYS (swarm keys add NAME FILE.pub), "
    "or into a .pub file owned by root in the keys folder"
)


class HomeKeys:
    """Looks for such keys at the start and after each session; the keyring stores them."""

    def __init__(self, keyring: Keyring, account: Account, children: Children, bus: Bus) -> None:
        self._keyring = keyring
        self._account = account
        self._children = children
        self._bus = bus
        self._due = asyncio.Event()
        self._due.set()
        bus.subscribe(self._hear, early=True)

    async def run(self) -> None:
        """Look whenever that is due, until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            await self._look()

    def _hear(self, event: Event) -> None:
        if isinstance(event, SessionClosed):
            self._due.set()

    async def _look(self) -> None:
        ours = {entry.key.blob for entry in self._keyring.keys.usable}
        found: list[AuthorizedKey] = []
        for place in PLACES:
            path = f"{self._account.home}/{place}"
            if os.path.lexists(path):
                found += parse(await self._read(path), f"~/{place}").usable
        before, self._keyring.in_home = (
            self._keyring.in_home,
            tuple(entry for entry in found if entry.key.blob not in ours),
        )
        if self._keyring.in_home and self._keyring.in_home != before:
            notice = about(self._keyring.in_home)
            self._bus.publish(Notice(part="keys in the home", notice=notice))

    async def _read(self, path: str) -> bytes:
        try:
            done = await self._children.run(
                ["head", "-c", str(LIMIT), "--", path],
                env=environment_of(self._account.name),
                patience=PATIENCE,
                keep=LIMIT,
                cwd="/",
                run_as=credentials_of(self._account.name),
            )
        except (OSError, NotDone):
            return b""  # a pipe, for instance: nobody puts a key there
        return done.output


def about(found: tuple[AuthorizedKey, ...]) -> str:
    """Why these keys do not count, and where to put them."""
    names = [entry.name for entry in found[:MOST_NAMED]]
    more = len(found) - len(names)
    names += [f"{more} more"] if more else []
    lets = "lets" if len(found) == 1 else "let"
    return f"{found[0].source} {lets} nobody in ({', '.join(names)}): {WHAT_COUNTS}"
