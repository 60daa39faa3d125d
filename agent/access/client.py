"""Who is calling."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Client:
    """The other end of a connection, as far as it is known."""

    address: str
    port: int

    def __str__(self) -> str:
        return self.address

    @classmethod
    def from_peer(cls, peer: tuple[str, int] | tuple[str, int, int, int]) -> "Client":
        """From what accept(2) returned; an IPv4 client of an IPv6 socket is an IPv4 client."""
        return cls(peer[0].removeprefix("::ffff:"), peer[1])
