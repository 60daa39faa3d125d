"""The keys in force: found at boot, and again when a file of the keys' folder changes.

sshd reads its file at each login, so a key that is gone lets nobody in from the next connection on.
"""

from collections.abc import Mapping

from agent.access import keys
from agent.access.keys import AuthorizedKey, Keys
from agent.events import Bus, KeyInstalled, KeyRefused, KeyRemoved, Trouble
from agent.platform.account import Account


class Keyring:
    """Holds the keys; read `keys` at each use, never keep it."""

    def __init__(
        self, environ: Mapping[str, str], folder: str, path: str, account: Account, bus: Bus
    ) -> None:
        self.keys = Keys((), ())
        self._environ = environ
        self._folder = folder
        self._path = path
        self._account = account
        self._bus = bus
        self._was_empty = False
        self._installed = False

    def load(self, *, in_place: bool = False) -> None:
        """Find all keys, write them for sshd, and tell what is new and what is gone.

        Raises `OSError` where they cannot be written: those before stay in force. Where some are
        `in_place` already, since before this process re-executed, that is told instead.
        """
        found = keys.find(self._environ, self._folder)
        # The first time in any case: the run folder may have the keys of a life before.
        if not self._installed or found != self.keys:
            try:
                keys.install(found, self._path, self._account)
            except OSError as error:
                if not in_place:
                    raise
                problem = f"{self._path} cannot be written, the keys in it stay in force: {error}"
                self._bus.publish(Trouble(part="keys", problem=problem))
            self._tell(self.keys, found)
            self.keys, self._installed = found, True
        if not found.usable and not self._was_empty:
            self._bus.publish(Trouble(part="keys", problem=NO_KEY))
        self._was_empty = not found.usable

    def _tell(self, before: Keys, found: Keys) -> None:
        for bad in found.bad:
            if bad not in before.bad:
                self._bus.publish(KeyRefused(source=bad.source, line=bad.line, reason=bad.reason))
        had, has = _by_fingerprint(before), _by_fingerprint(found)
        for fingerprint in had.keys() - has.keys():
            entry = had[fingerprint]
            self._bus.publish(
                KeyRemoved(key=entry.name, fingerprint=fingerprint, source=entry.source)
            )
        for fingerprint, entry in has.items():
            if fingerprint not in had:
                self._bus.publish(
                    KeyInstalled(
                        key=entry.name,
                        type=entry.key.type,
                        fingerprint=fingerprint,
                        source=entry.source,
                    )
                )


NO_KEY = (
    "no usable key: nobody can log in. Put the line of your .pub file into "
    "the secret SSH_AUTHORIZED_KEYS"
)


def _by_fingerprint(found: Keys) -> dict[str, AuthorizedKey]:
    return {entry.key.fingerprint: entry for entry in found.usable}
