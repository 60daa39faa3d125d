"""Networks that have logged in before: they are served first, and for some days never banned.

An address can be shared with strangers (NAT) and a name can be guessed, but only the holder of a
key can log in. So a login shows, for a while, that somebody honest uses its network.

Pure: `now` is a clock that never steps, as for the jail. Dates on the volume are converted to it
where they are read.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable

from agent.network import Network

SERVED_FIRST = 30 * 86400.0
"""Seconds after a login for which its network does not wait behind strangers."""

SPARED = 3 * 86400.0
"""Seconds after a login for which its network is slowed down instead of banned."""

MOST = 2000
"""Networks that are remembered; the one with the oldest login is dropped first."""


class Known:
    """When each network last logged in, and how many sessions it has open now."""

    def __init__(self) -> None:
        self._logins: OrderedDict[Network, float] = OrderedDict()
        self._open: Counter[Network] = Counter()

    def restore(self, logins: Iterable[tuple[Network, float]], now: float) -> None:
        """Restore the logins of earlier runs; a date in the future counts as now."""
        for network, at in sorted(logins, key=lambda login: login[1]):
            self._note(network, min(at, now))

    def opened(self, network: Network, now: float) -> None:
        """Note that a session of this network began."""
        self._open[network] += 1
        self._note(network, now)

    def closed(self, network: Network, now: float) -> None:
        """Note that a session of this network ended."""
        self._open[network] -= 1
        if self._open[network] <= 0:
            del self._open[network]
        self._note(network, now)

    def served_first(self, network: Network, now: float) -> bool:
        """This network has logged in within `SERVED_FIRST`, or has a session now."""
        return self._within(network, now, SERVED_FIRST)

    def spared(self, network: Network, now: float) -> bool:
        """This network has logged in within `SPARED`, or has a session now."""
        return self._within(network, now, SPARED)

    def logins(self, now: float) -> list[tuple[Network, float]]:
        """Each network that logged in within `SERVED_FIRST`, and the time of its last login."""
        return [(each, at) for each, at in self._logins.items() if now - at < SERVED_FIRST]

    def _within(self, network: Network, now: float, seconds: float) -> bool:
        at = self._logins.get(network)
        return self._open[network] > 0 or (at is not None and now - at < seconds)

    def _note(self, network: Network, at: float) -> None:
        self._logins[network] = at
        self._logins.move_to_end(network)
        if len(self._logins) > MOST:
            self._logins.popitem(last=False)
