"""Strikes and bans: who has failed too often, and for how long they stay out.

Pure: every method takes the clock and says what follows; who calls it cuts connections, writes the
database and tells the log. The names are fail2ban's: `maxretry` strikes within `findtime` seconds
make a ban of `bantime` seconds, which doubles for whoever comes back, up to `bantime_max`.

`now` is a clock that never steps (seconds, asleep or awake): no step of the wall clock makes a
strike count longer or a ban end earlier.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from agent.access.values import Ban, Verdict
from agent.network import Network, any_covers
from agent.pace import doubled

WEIGHTS = {Verdict.FAILED: 1.0, Verdict.INVALID_USER: 2.0, Verdict.PROBE: 0.5}
"""Strikes of one connection. Guessing user names weighs more, garbage less, silence nothing."""

SILENT = 0.5
"""The strike of a connection that said nothing for most of the time that a login may take."""

STRIKES_KEPT = 100
"""Strikes of one network that are remembered: one that is spared has no ban to end them."""

HISTORY_DECAY = 86400.0
"""Seconds after the end of a ban in which one earlier ban is forgotten."""

TRACKED = 50_000
"""Networks whose strikes are remembered; the longest silent one is forgotten first."""

MOST_BANS = 1_000_000
"""Bans that are remembered; the oldest is forgotten for one more."""

COUNTED = 50_000
"""Up to so many remembered bans, active ones are counted one by one."""

EXPIRE_BATCH = 1000
"""Bans that one call of `expire` looks at."""


OWN = Network.host("127.0.0.1")
"""What all addresses of this machine are counted as."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When to ban and for how long; seconds. IPv6 is counted by its first `ipv6_prefix` bits."""

    maxretry: int
    findtime: float
    bantime: float
    bantime_max: float
    ipv6_prefix: int
    ignore: tuple[Network, ...]
    dry_run: bool = False
    """Bans are only tried out: reported, not enforced."""


IsOwn = Callable[[Network], bool]
Spares = Callable[[Network, float], bool]


def spare_nobody(_network: Network, _now: float) -> bool:
    """Nobody logged in before."""
    return False


class Jail:
    """Knows strikes and bans. Not told of unknown clients: they are nobody to blame.

    `is_own` tells this machine's own addresses, which are never banned and count as one host.
    `spares` tells the networks that are slowed down instead of banned.
    """

    def __init__(self, policy: Policy, is_own: IsOwn, spares: Spares = spare_nobody) -> None:
        self.policy = policy
        self._is_own = is_own
        self._spares = spares
        self._strikes: OrderedDict[Network, list[tuple[float, float]]] = OrderedDict()
        # In the order in which they came, so that the latest are found at the end.
        self._bans: dict[Network, Ban] = {}
        self._to_look_at: deque[Network] = deque()
        self._prefixes: Counter[tuple[int, int]] = Counter()
        self.strikes_given = 0

    def network(self, host: Network) -> Network:
        """What a host is counted as: itself, its IPv6 network, or this machine."""
        if self._is_own(host):
            return OWN
        return host.within(min(host.prefix, self.policy.ipv6_prefix)) if host.prefix > 32 else host

    def exempts(self, host: Network) -> bool:
        """The host is on the ignore-list that the user gave."""
        return any_covers(self.policy.ignore, host)

    def ignores(self, host: Network) -> bool:
        """The host is never banned: it is on the ignore-list, or this machine."""
        return self.exempts(host) or self._is_own(host)

    def banned(self, host: Network, now: float) -> Ban | None:
        """The ban that keeps a host out now. Its cost does not grow with the number of bans."""
        for family, prefix in self._prefixes:
            if family == host.family and prefix <= host.prefix:
                ban = self._bans.get(host.within(prefix))
                if ban is not None and now < ban.until and not self.ignores(host):
                    return ban
        return None

    def strike(
        self, host: Network, verdict: Verdict, now: float, *, silent: bool = False
    ) -> Ban | None:
        """A connection of the host ended with this verdict; the ban that it earned, if any.

        `silent`: it said nothing for most of its time. A network that is spared earns no ban, and
        is slowed down while it has too many strikes.
        """
        silence = SILENT if silent and verdict is Verdict.NOTHING else 0.0
        weight = WEIGHTS.get(verdict, silence)
        if not weight or self.ignores(host) or self.banned(host, now):
            return None
        self.strikes_given += 1
        network = self.network(host)
        window = [
            (at, was)
            for at, was in self._strikes.pop(network, ())
            if now - at < self.policy.findtime
        ]
        window = [*window, (now, weight)][-STRIKES_KEPT:]
        enough = sum(was for _, was in window) >= self.policy.maxretry
        if not enough or self._spares(network, now):
            self._strikes[network] = window
            if len(self._strikes) > TRACKED:
                self._strikes.popitem(last=False)
            return None
        what = "silence" if verdict is Verdict.NOTHING else verdict.value
        return self.ban(network, None, now, f"{len(window)} failed connections: {what}")

    def login(self, host: Network) -> None:
        """The host logged in: its slate is clean."""
        self._strikes.pop(self.network(host), None)

    def ban(self, network: Network, seconds: float | None, now: float, reason: str) -> Ban:
        """Keep a network out for so long, or for as long as its history asks for."""
        times = self._history(network, now) + 1
        if seconds is None:
            longest = max(self.policy.bantime_max, self.policy.bantime)
            seconds = doubled(self.policy.bantime, times - 1, longest)
        ban = Ban(network, now, now + seconds, times, reason, self.policy.dry_run)
        self.restore(ban)
        self._strikes.pop(network, None)
        return ban

    def restore(self, ban: Ban) -> None:
        """Know a ban again, as it was."""
        self._forget(ban.network)
        if len(self._bans) >= MOST_BANS:
            self._forget(next(iter(self._bans)))
        self._prefixes[ban.network.family, ban.network.prefix] += 1
        self._bans[ban.network] = ban

    def unban(self, network: Network, now: float) -> Ban | None:
        """Let a network in again and forget its history; the ban that held until now."""
        ban = self._forget(network)
        return ban if ban is not None and now < ban.until else None

    def follow(self, policy: Policy) -> None:
        """Decide by this policy from now on. Bans that were only tried out are no bans under it."""
        if not policy.dry_run:
            for ban in [ban for ban in self._bans.values() if ban.dry_run]:
                self._forget(ban.network)
        self.policy = policy

    def keep_latest(self, most: int) -> None:
        """Forget all but the latest bans, at most so many."""
        for network in list(self._bans)[:-most]:
            self._forget(network)

    def get(self, network: Network) -> Ban | None:
        """The ban of exactly this network that is remembered, if any."""
        return self._bans.get(network)

    def all(self) -> list[Ban]:
        """Every remembered ban, expired ones included."""
        return list(self._bans.values())

    def active(self, now: float, most: int | None = None) -> list[Ban]:
        """The bans that hold now, the latest first, at most so many."""
        bans = (ban for ban in reversed(self._bans.values()) if now < ban.until)
        return list(islice(bans, most))

    def count(self, now: float) -> int:
        """How many bans hold now; of very many, how many are remembered."""
        if len(self._bans) > COUNTED:
            return len(self._bans)
        return sum(now < ban.until for ban in self._bans.values())

    def weight(self, network: Network, now: float) -> float:
        """The weight of the strikes that count against a network (see `network`) now."""
        return sum(weight for _, weight in self._window(network, now))

    def has_too_many(self, network: Network, now: float) -> bool:
        """It would be banned if it were not spared."""
        return self.weight(network, now) >= self.policy.maxretry

    def expire(self, now: float) -> list[Network]:
        """Forget what no longer matters; the networks whose history is over.

        Of the bans a part is looked at in turn, so that a million of them hold nobody up.
        """
        over = []
        if not self._to_look_at:
            self._to_look_at.extend(self._bans)
        for _ in range(min(EXPIRE_BATCH, len(self._to_look_at))):
            network = self._to_look_at.popleft()
            if network in self._bans and not self._history(network, now):
                self._forget(network)
                over.append(network)
        for network, window in list(self._strikes.items()):
            if now - window[-1][0] >= self.policy.findtime:
                del self._strikes[network]
        return over

    def _window(self, network: Network, now: float) -> list[tuple[float, float]]:
        findtime = self.policy.findtime
        return [strike for strike in self._strikes.get(network, ()) if now - strike[0] < findtime]

    def _history(self, network: Network, now: float) -> int:
        ban = self._bans.get(network)
        if ban is None:
            return 0
        return max(0, ban.times - int(max(0.0, now - ban.until) // HISTORY_DECAY))

    def _forget(self, network: Network) -> Ban | None:
        ban = self._bans.pop(network, None)
        if ban is not None:
            kind = (network.family, network.prefix)
            self._prefixes[kind] -= 1
            if not self._prefixes[kind]:
                del self._prefixes[kind]
        return ban
