"""The hourly price of a machine, from a dated table that the user can replace."""

import tomllib
from pathlib import Path

import msgspec

DEFAULT = Path(__file__).parent.parent / "data" / "prices.toml"
HOURS_OF_A_MONTH = 30 * 24


class PriceError(Exception):
    """The table cannot be used, or lacks the size; the message says which and why."""


class Size(msgspec.Struct, frozen=True):
    """The size of a machine as bought."""

    cpu_kind: str
    cpus: int
    memory_mb: int

    @property
    def preset(self) -> str:
        """The name of its preset, such as `shared-cpu-1x`."""
        kind = "shared-cpu" if self.cpu_kind == "shared" else self.cpu_kind
        return f"{kind}-{self.cpus}x"


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A size with its memory, and the price of 30 days."""

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
        """The price of an hour. Raises `PriceError` if the table lacks the size."""
        preset = self.preset.get(size.preset)
        if preset is None:
            raise PriceError(f"no price for {size.preset}: {', '.join(self.preset)} have one")
        extra = max(0, size.memory_mb - preset.memory_mb) / 1024 * self.memory_gb_month
        return (preset.month + extra) / HOURS_OF_A_MONTH


def load(path: str) -> Prices:
    """The table at `path`; the agent's own if `path` is empty. Raises `PriceError`."""
    file = Path(path) if path else DEFAULT
    try:
        return msgspec.convert(tomllib.loads(file.read_text("utf-8-sig")), Prices)
    except (OSError, ValueError) as error:  # msgspec and tomllib raise subclasses of ValueError
        raise PriceError(f"{file}: {error}") from error
