"""What the control socket answers: the records that the commands of the CLI show.

They are the documented shape of `--json`: fields are added, never renamed.
"""

import msgspec


class SessionReport(msgspec.Struct, frozen=True):
    """An open SSH session. Times in seconds; `since` is Unix time; bytes as the machine sees."""

    id: str
    user: str
    key: str
    fingerprint: str
    client: str
    since: float
    idle: float
    bytes_in: int
    bytes_out: int
    terminals: list[str]
    pid: int


class KeyReport(msgspec.Struct, frozen=True):
    """An authorised key."""

    name: str
    type: str
    bits: int
    fingerprint: str
    source: str


class KeysReport(msgspec.Struct, frozen=True):
    """All authorised keys, and the lines that are none (`SOURCE line N: reason`)."""

    keys: list[KeyReport]
    refused: list[str]


class HealthReport(msgspec.Struct, frozen=True):
    """Whether SSH can be used, and what is wrong, per part."""

    healthy: bool
    problems: dict[str, str]


class BanReport(msgspec.Struct, frozen=True):
    """A network that stays out: `seconds` is how long still, `times` how often it was banned."""

    network: str
    seconds: float
    times: int
    reason: str


class BanOrder(msgspec.Struct, frozen=True):
    """The request to ban a network; without `seconds`, for as long as its history asks for."""

    network: str
    seconds: float | None = None


class BansLifted(msgspec.Struct, frozen=True):
    """How many bans held until they were lifted."""

    lifted: int
