"""Strikes and bans: which networks have failed too often, and how long they are banned.

Pure: every method takes the time and returns its decision; the caller closes connections, writes
the database and logs. The names are fail2ban's: `maxretry` strikes within `findtime` seconds cause
a ban of `bantime` seconds, which doubles at each further ban, up to `bantime_max`.

`now` is a clock that never steps (seconds, including suspends): no step of the wall clock makes a
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
"""Strikes of one connection. A guessed user name weighs more, garbage less."""

SILENT = 0.5
"""The strike of a connection that did nothing for a long time (`SILENCE` in gate.py)."""

STRIKES_KEPT = 100
"""Strikes remembered of one network: a spared network has no ban that would clear them."""

HISTORY_DECAY = 86400.0
"""Seconds after the end of a ban until it counts for one ban less, each time."""

TRACKED = 50_000
"""Networks whose strikes are remembered; the one with the oldest last strike is dropped first."""

MOST_BANS = 1_000_000
"""Bans that are remembered; a further one replaces the oldest."""

COUNTED = 50_000
"""Up to so many remembered bans, the active ones are counted exactly."""

EXPIRE_BATCH = 1000
"""Bans that one call of `expire` checks."""


OWN = Network.host("127.0.0.1")
"""Stands for all addresses of this machine."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When to ban and for how long, in seconds. IPv6 counts by its first `ipv6_prefix` bits."""

    maxretry: int
    findtime: float
    bantime: float
    bantime_max: float
    ipv6_prefix: int
    ignore: tuple[Network, ...]
    dry_run: bool = False
    """Bans are reported but not enforced."""


IsOwn = Callable[[Network], bool]
Spares = Callable[[Network, float], bool]


def spare_nobody(_network: Network, _now: float) -> bool:
    """Spare no network."""
    return False


class Jail:
    """Keeps strikes and bans. Never called for unknown clients: nobody can be blamed for them.

    `is_own` recognizes this machine's own addresses, which are never banned and count as one host.
    `spares` recognizes networks that are slowed down instead of banned.
    """

    def __init__(self, policy: Policy, is_own: IsOwn, spares: Spares = spare_nobody) -> None:
        self.policy = policy
        self._is_own = is_own
        self._spares = spares
        self._strikes: OrderedDict[Network, list[tuple[float, float]]] = OrderedDict()
        # In order of creation, so that the latest are at the end.
        self._bans: dict[Network, Ban] = {}
        self._to_look_at: deque[Network] = deque()
        self._prefixes: Counter[tuple[int, int]] = Counter()
        self.strikes_given = 0

    def network(self, host: Network) -> Network:
        """The network a host counts as: itself, its IPv6 network, or this machine."""
        if self._is_own(host):
            return OWN
        return host.within(min(host.prefix, self.policy.ipv6_prefix)) if host.prefix > 32 else host

    def exempts(self, host: Network) -> bool:
        """The host is on the user's ignore-list."""
        return any_covers(self.policy.ignore, host)

    def ignores(self, host: Network) -> bool:
        """The host is never banned: it is on the ignore-list, or this machine."""
        return self.exempts(host) or self._is_own(host)

    def banned(self, host: Network, now: float) -> Ban | None:
        """The active ban of a host, if any. The cost does not grow with the number of bans."""
        for family, prefix in self._prefixes:
            if family == host.family and prefix <= host.prefix:
                ban = self._bans.get(host.within(prefix))
                if ban is not None and now < ban.until and not self.ignores(host):
                    return ban
        return None

    def strike(
        self, host: Network, verdict: Verdict, now: float, *, silent: bool = False
    ) -> Ban | None:
        """Count a connection that ended with this verdict. Returns the ban it causes, if any.

        `silent`: it lasted for long, so that `Verdict.NOTHING` is a strike. A spared network is not
        banned, but slowed down while it has too many strikes.
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
        """Forget the strikes of a host that logged in."""
        self._strikes.pop(self.network(host), None)

    def ban(self, network: Network, seconds: float | None, now: float, reason: str) -> Ban:
        """Ban a network for `seconds`, or for a time that grows with its earlier bans."""
        times = self._history(network, now) + 1
        if seconds is None:
            longest = max(self.policy.bantime_max, self.policy.bantime)
            seconds = doubled(self.policy.bantime, times - 1, longest)
        ban = Ban(network, now, now + seconds, times, reason, self.policy.dry_run)
        self.restore(ban)
        self._strikes.pop(network, None)
        return ban

    def restore(self, ban: Ban) -> None:
        """Restore a ban."""
        self._forget(ban.network)
        if len(self._bans) >= MOST_BANS:
            self._forget(next(iter(self._bans)))
        self._prefixes[ban.network.family, ban.network.prefix] += 1
        self._bans[ban.network] = ban

    def unban(self, network: Network, now: float) -> Ban | None:
        """Lift a ban and forget the network's history. Returns the ban if it was active."""
        ban = self._forget(network)
        return ban if ban is not None and now < ban.until else None

    def follow(self, policy: Policy) -> None:
        """Apply this policy from now on. Bans of a dry run are dropped once it is over."""
        if not policy.dry_run:
            for ban in [ban for ban in self._bans.values() if ban.dry_run]:
                self._forget(ban.network)
        self.policy = policy

    def keep_latest(self, most: int) -> None:
        """Forget all bans but the latest `most`."""
        for network in list(self._bans)[:-most]:
            self._forget(network)

    def get(self, network: Network) -> Ban | None:
        """The remembered ban of exactly this network, if any."""
        return self._bans.get(network)

    def all(self) -> list[Ban]:
        """Every remembered ban, expired ones included."""
        return list(self._bans.values())

    def active(self, now: float, most: int | None = None) -> list[Ban]:
        """The active bans, the latest first, at most `most`."""
        bans = (ban for ban in reversed(self._bans.values()) if now < ban.until)
        return list(islice(bans, most))

    def count(self, now: float) -> int:
        """The number of active bans; beyond `COUNTED`, the number of remembered bans."""
        if len(self._bans) > COUNTED:
            return len(self._bans)
        return sum(now < ban.until for ban in self._bans.values())

    def weight(self, network: Network, now: float) -> float:
        """The total weight of the strikes that count against a network (see `network`) now."""
        return sum(weight for _, weight in self._window(network, now))

    def has_too_many(self, network: Network, now: float) -> bool:
        """The network has enough strikes for a ban."""
        return self.weight(network, now) >= self.policy.maxretry

    def expire(self, now: float) -> list[Network]:
        """Forget old bans and strikes. Returns the networks whose bans are forgotten.

        Each call checks a part of the bans, so that a million of them do not block the caller.
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
