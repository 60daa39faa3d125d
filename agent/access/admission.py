"""Decides which clients may connect, and which waiting connection gets a sshd next.

Clients that are banned, not allowed or too fast are refused. All others are in one of three lanes:

- *known*: the network logged in lately (`known.py`). Its connections never wait.
- *slowed*: known, but with too many failures or connections. A few connections of each such network
  are served at a time, so that a neighbour behind the same address delays the owner for a moment
  but never prevents a login.
- *stranger*: everybody else. A few are served at a time in total, and one of each network. A
  waiting connection costs a socket and no process. The order: clients that have sent something,
  then networks with the fewest failures and open connections, then the oldest connection.

A place becomes free when its connection logs in or ends, or after `TURN` seconds: a slow or silent
client delays nobody. After its turn a connection stays open until its grace time is over. If there
are too many connections, the oldest one without an attempt to log in is closed.

Pure: connections are tokens with a client, and the time is an argument. Each door (the public and
the private listener) has its own `Admission`, so that a full door does not affect the other.
"""

import os
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from agent.access.jail import Jail
from agent.access.known import Known
from agent.access.values import Client
from agent.network import Network, any_covers
from agent.pace import Bucket

Token = TypeVar("Token")

TURN = 1.0
"""Seconds for which a connection without a login holds its place."""

STRANGERS_AT_ONCE = max(2, os.cpu_count() or 1)
"""Strangers served at one time: their key exchanges cost the most CPU time."""

SLOWED_AT_ONCE = 2
"""Connections of each slowed network that are served at one time."""

TRACKED = 50_000
"""Networks whose rate is remembered."""


class Refusal(Enum):
    """Why the gate closes a connection before any sshd is started for it."""

    BANNED = "banned"
    DENIED = "on the deny-list"
    NOT_ALLOWED = "not on the allow-list"
    CLIENT_CAP = "too many unauthenticated connections of this client"
    TOTAL_CAP = "too many unauthenticated connections"
    RATE = "too many connections in a short time"
    NOT_PROXY = "not from the proxy's networks"
    NO_HEADER = "closed without a PROXY header"
    BAD_HEADER = "malformed PROXY header"
    SLOW_HEADER = "PROXY header not complete in time"
    HEADER_CAP = "too many connections wait for a PROXY header"
    NO_PROCESS = "no sshd could be started"


class Lane(Enum):
    """How a connection is served."""

    KNOWN = "known"
    SLOWED = "slowed"
    STRANGER = "stranger"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of each client and of each lane."""

    allow: tuple[Network, ...]
    deny: tuple[Network, ...]
    unauthenticated: int
    unauthenticated_per_client: int
    connections_per_minute: int
    enforce_bans: bool
    strangers_at_once: int = STRANGERS_AT_ONCE


@dataclass(slots=True, eq=False)
class _Entry(Generic[Token]):
    """A connection that has not logged in; `began` is when its turn began."""

    token: Token
    client: Client
    network: Network
    arrived: float
    spoke: bool = False
    tried: bool = False
    began: float | None = None

    def holds_place(self, now: float) -> bool:
        """Its turn has begun and is not over."""
        return self.began is not None and now - self.began < TURN


class Admission(Generic[Token]):
    """Decides on the connections of one door; a token stands for a connection it did not refuse."""

    def __init__(self, limits: Limits, jail: Jail, known: Known) -> None:
        self.limits = limits
        self._jail = jail
        self._known = known
        self._entries: dict[Token, _Entry[Token]] = {}
        self._rates: OrderedDict[Network, Bucket] = OrderedDict()

    @property
    def unauthenticated(self) -> int:
        """Connections that have not logged in yet, waiting ones included."""
        return len(self._entries)

    @property
    def waiting(self) -> int:
        """Connections that wait for their turn."""
        return sum(entry.began is None for entry in self._entries.values())

    def decide(self, client: Client, now: float) -> Refusal | None:
        """The refusal if this client may not connect now, else None."""
        return self._listed(client, now) or self._over_rate(client, now)

    def arrived(self, token: Token, client: Client, now: float) -> list[Token]:
        """Queue a connection. Returns the connections to close for it, perhaps itself."""
        entry = _Entry(token, client, self._jail.network(client.host), now)
        self._entries[token] = entry
        return [each.token for each in self._too_many(entry, now)]

    def spoke(self, token: Token) -> None:
        """Note that the client has sent something: this is more than a bare connect."""
        if token in self._entries:
            self._entries[token].spoke = True

    def tried(self, token: Token) -> None:
        """Note that the client has tried to log in."""
        if token in self._entries:
            self._entries[token].tried = True

    def tokens(self) -> list[Token]:
        """All connections that have not logged in."""
        return list(self._entries)

    def left(self, token: Token) -> None:
        """Remove a connection that logged in or ended."""
        self._entries.pop(token, None)

    def next(self, now: float) -> Token | None:
        """Begin the next turn, if one can begin now. Returns its connection."""
        entries = self._entries.values()
        lanes = self._lanes(now)
        busy = Counter(entry.network for entry in entries if entry.holds_place(now))
        strangers = sum(
            lanes[entry] is Lane.STRANGER for entry in entries if entry.holds_place(now)
        )
        opened = Counter(entry.network for entry in entries if entry.began is not None)

        def has_place(entry: "_Entry[Token]") -> bool:
            match lanes[entry]:
                case Lane.KNOWN:
                    return True
                case Lane.SLOWED:
                    return busy[entry.network] < SLOWED_AT_ONCE
            # Clients that the proxy does not name all share the proxy's network: no limit for it.
            own = busy[entry.network] if entry.client.known else 0
            return not own and strangers < self.limits.strangers_at_once

        def order(entry: "_Entry[Token]") -> tuple[float, ...]:
            if lanes[entry] is not Lane.STRANGER:
                return (0, 0, 0, -entry.arrived)
            failed = self._jail.weight(entry.network, now) + opened[entry.network]
            return (1, not entry.spoke, failed, entry.arrived)

        free = [entry for entry in entries if entry.began is None and has_place(entry)]
        if not free:
            return None
        chosen = min(free, key=order)
        chosen.began = now
        return chosen.token

    def due(self, now: float) -> float | None:
        """Seconds until the next turn is over; None if no connection waits for a place."""
        ends = [
            entry.began + TURN
            for entry in self._entries.values()
            if entry.began is not None and entry.holds_place(now)
        ]
        return max(0.0, min(ends) - now) if ends and self.waiting else None

    def overdue(self, now: float, patience: float) -> list[Token]:
        """Connections that have waited too long for their turn."""
        return [
            token
            for token, entry in self._entries.items()
            if entry.began is None and now - entry.arrived >= patience
        ]

    def lane(self, client: Client, now: float) -> Lane:
        """The lane in which this client is served now."""
        return self._lane(client, self._jail.network(client.host), now)

    def overlapping(self, network: Network) -> list[Token]:
        """The unauthenticated connections whose network overlaps this one."""
        return [
            token
            for token, entry in self._entries.items()
            if network.covers(entry.network) or entry.network.covers(network)
        ]

    def _lane(self, client: Client, network: Network, now: float) -> Lane:
        if not client.known:
            return Lane.STRANGER
        if self._jail.exempts(client.host):
            return Lane.KNOWN
        if not self._known.served_first(network, now):
            return Lane.STRANGER
        slowed = self._jail.has_too_many(network, now) or self._is_fast(network, now)
        return Lane.SLOWED if slowed else Lane.KNOWN

    def _lanes(self, now: float) -> "dict[_Entry[Token], Lane]":
        return {
            entry: self._lane(entry.client, entry.network, now) for entry in self._entries.values()
        }

    def _listed(self, client: Client, now: float) -> Refusal | None:
        host, limits = client.host, self.limits
        if client.known and limits.enforce_bans and self._jail.banned(host, now):
            return Refusal.BANNED
        if client.known and any_covers(limits.deny, host):
            return Refusal.DENIED
        if limits.allow and not (client.known and any_covers(limits.allow, host)):
            return Refusal.NOT_ALLOWED
        return None

    def _over_rate(self, client: Client, now: float) -> Refusal | None:
        if not client.known or self._jail.exempts(client.host):
            return None
        network = self._jail.network(client.host)
        within = self._within_rate(network, now)
        # A known network is slowed instead (see `_lane`).
        return None if within or self._known.served_first(network, now) else Refusal.RATE

    def _too_many(self, newcomer: "_Entry[Token]", now: float) -> "list[_Entry[Token]]":
        lanes = self._lanes(now)
        strange = lanes[newcomer] is Lane.STRANGER
        same = [entry for entry, lane in lanes.items() if (lane is Lane.STRANGER) is strange]
        own = [entry for entry in same if entry.network == newcomer.network]
        surplus: list[_Entry[Token]] = []
        if newcomer.client.known and len(own) > self.limits.unauthenticated_per_client:
            surplus.append(_oldest_silent(own, newcomer, now) or newcomer)
        if len(same) - len(surplus) > self.limits.unauthenticated:
            surplus.append(_oldest_silent(same, newcomer, now) or _newest_of_the_busiest(same))
        return surplus

    def _is_fast(self, network: Network, now: float) -> bool:
        limit = self.limits.connections_per_minute
        bucket = self._rates.get(network)
        return bucket is not None and bucket.level(limit / 60, limit, now) < 1

    def _within_rate(self, network: Network, now: float) -> bool:
        limit = self.limits.connections_per_minute  # and a minute's worth at once
        bucket = self._rates.setdefault(network, Bucket(limit, now))
        self._rates.move_to_end(network)
        if len(self._rates) > TRACKED:
            self._rates.popitem(last=False)
        within = bucket.level(limit / 60, limit, now) >= 1
        if within:
            bucket.take(1, limit / 60, limit, now)
        return within


def _oldest_silent(
    entries: "Iterable[_Entry[Token]]", newcomer: "_Entry[Token]", now: float
) -> "_Entry[Token] | None":
    """Among connections that have tried nothing: one that never sent a byte, else the oldest."""

    def order(entry: "_Entry[Token]") -> tuple[bool, float]:
        mute = entry.began is None and not entry.spoke and now - entry.arrived >= TURN
        return not mute, entry.arrived

    silent = [entry for entry in entries if not entry.tried and entry is not newcomer]
    return min(silent, key=order, default=None)


def _newest_of_the_busiest(entries: "Iterable[_Entry[Token]]") -> "_Entry[Token]":
    networks: dict[Network, list[_Entry[Token]]] = {}
    for entry in entries:
        networks.setdefault(entry.network, []).append(entry)
    return max(networks.values(), key=len)[-1]
