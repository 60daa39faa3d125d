"""Who is calling."""

from dataclasses import dataclass

from agent.network import Network


@dataclass(frozen=True, slots=True)
class Client:
    """The other end of a connection.

    Where the proxy did not tell (`known` is false), `host` is the proxy: it is nobody to blame.
    """

    host: Network
    port: int
    known: bool = True

    def __str__(self) -> str:
        return self.host.address if self.known else f"unknown (by way of {self.host.address})"


Peer = tuple[str, int] | tuple[str, int, int, int]
"""What accept(2) says of the other end."""


def from_peer(peer: Peer) -> Client:
    """The client of a connection that comes without a proxy."""
    return Client(Network.host(peer[0]), peer[1])
