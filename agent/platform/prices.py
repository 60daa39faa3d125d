"""What an hour of a machine costs, from a dated table that the user can replace."""

import tomllib
from pathlib import Path

import msgspec

DEFAULT = Path(__file__).parent.parent / "data" / "prices.toml"
HOURS_OF_A_MONTH = 30 * 24


class PriceError(Exception):
    """The table cannot be used, or has no such size; the message says which and why."""


class Size(msgspec.Struct, frozen=True):
    """What a machine was bought as."""

    cpu_kind: str
    cpus: int
    memory_mb: int

    @property
    def preset(self) -> str:
        """The name of its preset, such as `shared-cpu-1x`."""
        kind = "shared-cpu" if self.cpu_kind == "shared" else self.cpu_kind
        return f"{kind}-{self.cpus}x"


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A size with its memory, and what 30 days of it cost."""

    memory_mb: int
    month: float


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole table."""

    date: str
    currency: str
    source: str
    memory_gb_month: float
    preset: dict[str, Preset]

    def hour(self, size: Size) -> float:
        """What an hour costs. Raises `PriceError` for a size that the table does not have."""
        preset = self.preset.get(size.preset)
        if preset is None:
            raise PriceError(f"no price for {size.preset}: {', '.join(self.preset)} have one")
        extra = max(0, size.memory_mb - preset.memory_mb) / 1024 * self.memory_gb_month
        return (preset.month + extra) / HOURS_OF_A_MONTH


def load(path: str) -> Prices:
    """The table at `path`; of the agent where `path` is empty. Raises `PriceError`."""
    file = Path(path) if path else DEFAULT
    try:
        return msgspec.convert(tomllib.loads(file.read_text("utf-8-sig")), Prices)
    except (OSError, ValueError) as error:  # msgspec's and tomllib's errors are of the second kind
        raise PriceError(f"{file}: {error}") from error
