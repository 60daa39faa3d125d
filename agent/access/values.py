"""The values that pass between the steps of a login: clients, verdicts and bans."""

from dataclasses import dataclass
from enum import Enum

from agent.network import Network


@dataclass(frozen=True, slots=True)
class Client:
    """The other end of a connection.

    If the proxy did not name it (`known` is false), `host` is the proxy, which is never blamed.
    """

    host: Network
    known: bool = True

    def __str__(self) -> str:
        return self.host.address if self.known else f"unknown (by way of {self.host.address})"


Peer = tuple[str, int] | tuple[str, int, int, int]
"""The address that accept(2) gives for the other end."""


def from_peer(peer: Peer) -> Client:
    """The client of a connection without a proxy."""
    return Client(Network.host(peer[0]).behind_nat64())


class Verdict(Enum):
    """The result of a whole connection: one per connection, not per line of sshd."""

    LOGIN = "login"
    NOTHING = "nothing"
    PROBE = "probe"
    FAILED = "failed"
    INVALID_USER = "invalid user"
    BROKEN_ACCOUNT = "broken account"


@dataclass(frozen=True, slots=True)
class Ban:
    """A network is banned from `since` until `until`; `times` is how often it was banned.

    A ban of a `dry_run` is not enforced and not stored.
    """

    network: Network
    since: float
    until: float
    times: int
    reason: str
    dry_run: bool = False
