"""Who may open a connection now: banned? → allow-list → caps → rate.

Pure: it knows the unauthenticated connections by their client's network, and answers for each new
one whether it is refused and why, or which older one has to go for it. A cap never touches a
connection that has logged in.
"""

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from agent.access.jail import Jail
from agent.access.values import Client
from agent.network import Network, any_covers

Token = TypeVar("Token")

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


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client and all clients together may use."""

    allow: tuple[Network, ...]
    deny: tuple[Network, ...]
    unauthenticated: int
    unauthenticated_per_client: int
    connections_per_minute: int
    enforce_bans: bool


class Admission(Generic[Token]):
    """Decides on connections; a token stands for one that was let in."""

    def __init__(self, limits: Limits, jail: Jail) -> None:
        self._limits = limits
        self._jail = jail
        self._waiting: dict[Network, list[Token]] = {}
        self._networks: dict[Token, Network] = {}
        self._rates: OrderedDict[Network, tuple[float, float]] = OrderedDict()

    @property
    def unauthenticated(self) -> int:
        """Connections that have not logged in yet."""
        return len(self._networks)

    def decide(self, client: Client, now: float) -> Refusal | None:
        """Why this client may not connect now, or None."""
        return self._listed(client, now) or self._over_cap(client) or self._over_rate(client, now)

    def _listed(self, client: Client, now: float) -> Refusal | None:
        host, limits = client.host, self._limits
        if client.known and limits.enforce_bans and self._jail.banned(host, now):
            return Refusal.BANNED
        if client.known and any_covers(limits.deny, host):
            return Refusal.DENIED
        if limits.allow and not (client.known and any_covers(limits.allow, host)):
            return Refusal.NOT_ALLOWED
        return None

    def _over_cap(self, client: Client) -> Refusal | None:
        network = self._jail.network(client.host)
        own = len(self._waiting.get(network, ()))
        if client.known and own >= self._limits.unauthenticated_per_client:
            return Refusal.CLIENT_CAP
        if self.unauthenticated >= self._limits.unauthenticated and self._is_busiest(network):
            return Refusal.TOTAL_CAP
        return None

    def _over_rate(self, client: Client, now: float) -> Refusal | None:
        if not client.known or self._jail.ignores(client.host):
            return None
        return None if self._within_rate(self._jail.network(client.host), now) else Refusal.RATE

    def to_evict(self) -> Token | None:
        """Who must go after one more was let in: the newest of the busiest network."""
        if self.unauthenticated <= self._limits.unauthenticated:
            return None
        return max(self._waiting.values(), key=len)[-1]

    def entered(self, token: Token, client: Client) -> None:
        """A connection was let in and has not logged in yet."""
        network = self._jail.network(client.host)
        self._networks[token] = network
        self._waiting.setdefault(network, []).append(token)

    def left(self, token: Token) -> None:
        """The connection logged in, or ended."""
        network = self._networks.pop(token, None)
        if network is None:
            return
        self._waiting[network].remove(token)
        if not self._waiting[network]:
            del self._waiting[network]

    def of(self, network: Network) -> list[Token]:
        """The unauthenticated connections from within a network."""
        return [
            token
            for waiting, tokens in self._waiting.items()
            if network.covers(waiting) or waiting.covers(network)
            for token in tokens
        ]

    def _is_busiest(self, newcomer: Network) -> bool:
        own = len(self._waiting.get(newcomer, ())) + 1
        return own >= max(map(len, self._waiting.values()))

    def _within_rate(self, network: Network, now: float) -> bool:
        # A token bucket: a minute's worth at once, filled again evenly.
        limit = float(self._limits.connections_per_minute)
        tokens, at = self._rates.pop(network, (limit, now))
        tokens = min(limit, tokens + max(0.0, now - at) * limit / 60)
        self._rates[network] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._rates) > TRACKED:
            self._rates.popitem(last=False)
        return tokens >= 1
