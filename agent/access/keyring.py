"""The keys in force: found at boot, and again when a file of the keys' folder changes.

sshd reads its file at each login, so a removed key is refused from the next connection on.
"""

from collections.abc import Mapping
from time import time

from agent.access import keys
from agent.access.keys import AuthorizedKey, Keys
from agent.bus import Bus
from agent.events import KeyInstalled, KeyRefused, KeyRemoved, Notice, Trouble
from agent.network import Network
from agent.platform.account import Account
from agent.settings import Settings


class Keyring:
    """Holds the keys. Read `keys` at each use: it is replaced when a key changes."""

    def __init__(
        self, environ: Mapping[str, str], settings: Settings, path: str, account: Account, bus: Bus
    ) -> None:
        self.keys = Keys((), ())
        self.in_home: tuple[AuthorizedKey, ...] = ()
        """Keys of the account's home, which let nobody in."""
        self._environ = environ
        self._folder = settings.keys_dir
        self._seen = seen_by_sshd(settings)
        self._path = path
        self._account = account
        self._bus = bus
        self._problem = ""
        self._installed = False

    @property
    def account(self) -> str:
        """The name of the login account."""
        return self._account.name

    def load(self, *, in_place: bool = False) -> None:
        """Find all keys, write them for sshd, and report new and removed keys.

        Raises `OSError` if they cannot be written; the previous keys stay in force. With `in_place`
        (they were written before this process re-executed), that is reported instead.
        """
        found = keys.find(self._environ, self._folder)
        # The first time in any case: the run folder may have the keys of a previous run.
        if not self._installed or found != self.keys:
            try:
                keys.install(found, self._path, self._account)
            except OSError as error:
                if not in_place:
                    raise
                problem = f"{self._path} cannot be written, the keys in it stay in force: {error}"
                self._bus.publish(Trouble(part="keys file", problem=problem))
            self._report(self.keys, found)
            self.keys, self._installed = found, True
        problem = self.problem()
        if problem and problem != self._problem:
            self._bus.publish(Trouble(part="keys", problem=problem))
        self._problem = problem

    def lets_nobody_in(self, entry: AuthorizedKey) -> str:
        """Why every login with this key fails now; empty if one may succeed."""
        return entry.lets_nobody_in(time(), self._seen)

    def admitting(self) -> list[AuthorizedKey]:
        """The keys with which somebody can log in now: one may have expired since it was found."""
        return [entry for entry in self.keys.usable if not self.lets_nobody_in(entry)]

    def problem(self) -> str:
        """Why nobody can log in now; empty if somebody can."""
        return no_login(self.keys, self._seen)

    def _report(self, before: Keys, found: Keys) -> None:
        for bad in found.bad:
            if bad not in before.bad:
                self._bus.publish(KeyRefused(source=bad.source, line=bad.line, reason=bad.reason))
        said = [str(odd) for odd in found.odd if odd not in before.odd]
        for entry in found.usable:
            useless = self.lets_nobody_in(entry)
            if useless and entry not in before.usable:
                said.append(f"{entry.source} line {entry.line} ({entry.name}): {useless}")
        if said:
            self._bus.publish(Notice(part="keys", notice="; ".join(said)))
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


def seen_by_sshd(settings: Settings) -> tuple[Network, ...] | None:
    """The client addresses that sshd sees, and compares with `from` of a key. None: any address.

    Behind a proxy these are the proxy's addresses.
    """
    if settings.proxy_protocol != "required" or settings.private_listen is not None:
        return None
    return settings.proxy_networks


def no_login(found: Keys, seen: tuple[Network, ...] | None) -> str:
    """Why nobody can log in with these keys now; empty if somebody can."""
    if not found.usable:
        return NO_KEY
    reasons = [(entry, entry.lets_nobody_in(time(), seen)) for entry in found.usable]
    if not all(reason for _, reason in reasons):
        return ""
    return "nobody can log in: " + "; ".join(f"{entry.name}: {why}" for entry, why in reasons[:3])


def _by_fingerprint(found: Keys) -> dict[str, AuthorizedKey]:
    return {entry.key.fingerprint: entry for entry in found.usable}
