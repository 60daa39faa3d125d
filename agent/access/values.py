"""The values that travel along the spine: who is calling, what came of it, who stays out."""

from dataclasses import dataclass
from enum import Enum

from agent.network import Network


@dataclass(frozen=True, slots=True)
class Client:
    """The other end of a connection.

    Where the proxy did not tell (`known` is false), `host` is the proxy: it is nobody to blame.
    """

    host: Network
    known: bool = True

    def __str__(self) -> str:
        return self.host.address if self.known else f"unknown (by way of {self.host.address})"


Peer = tuple[str, int] | tuple[str, int, int, int]
"""What accept(2) says of the other end."""


def from_peer(peer: Peer) -> Client:
    """The client of a connection that comes without a proxy."""
    return Client(Network.host(peer[0]).behind_nat64())


class Verdict(Enum):
    """What a whole connection was. The verdict is per connection, not per line."""

    LOGIN = "login"
    NOTHING = "nothing"
    PROBE = "probe"
    FAILED = "failed"
    INVALID_USER = "invalid user"
    BROKEN_ACCOUNT = "broken account"


@dataclass(frozen=True, slots=True)
class Ban:
    """A network stays out from `since` until `until`; `times` is how often it was banned.

    One that was made in a `dry_run` outlives nothing.
    """

    network: Network
    since: float
    until: float
    times: int
    reason: str
    dry_run: bool = False
