"""Measurements, and the table made from them."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Samples:
    """The measurements of one contender, one value per run."""

    contender: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def spread(self) -> str:
        """The smallest and the largest value."""
        return f"{_short(min(self.values))} to {_short(max(self.values))}"


@dataclass(frozen=True)
class Target:
    """A bound on the ratio of the agent to a peer."""

    peer: str
    bound: float
    at_least: bool = False

    def met(self, ratio: float) -> bool:
        """Whether the ratio is within the bound."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g} x {self.peer}"


@dataclass(frozen=True)
class Row:
    """One line of the table: the agent first, then its peers."""

    name: str
    unit: str
    samples: tuple[Samples, ...] = ()
    targets: tuple[Target, ...] = ()
    note: str = ""
    limits: tuple[tuple[str, float, bool], ...] = field(default=())
    """Absolute bounds of the agent's median: words, bound, at least."""

    def ratio(self, peer: str) -> float | None:
        """The agent's median to a peer's."""
        medians = {entry.contender: entry.median for entry in self.samples}
        if AGENT not in medians or not medians.get(peer):
            return None
        return medians[AGENT] / medians[peer]

    def verdicts(self) -> list[str]:
        """Each target with its result."""
        found = []
        for target in self.targets:
            ratio = self.ratio(target.peer)
            if ratio is not None:
                found.append(f"{target}: {'met' if target.met(ratio) else 'MISSED'}")
        for words, bound, at_least in self.limits:
            median = self.samples[0].median
            met = median >= bound if at_least else median <= bound
            found.append(f"{words}: {'met' if met else 'MISSED'}")
        return found


AGENT = "swarm-agent"


def markdown(rows: Sequence[Row]) -> str:
    """The table, a block for each row."""
    lines = [
        "| what | contender | median | min to max | runs | agent is | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if not row.samples:
            lines.append(f"| {row.name} | - | skipped: {row.note} | | | | |")
            continue
        verdicts = "; ".join(row.verdicts())
        for entry in row.samples:
            ratio = row.ratio(entry.contender)
            own = entry.contender == AGENT
            times = "" if own or ratio is None else f"{ratio:.2f} x"
            lines.append(
                f"| {row.name if own else ''} | {entry.contender} "
                f"| {_short(entry.median)} {row.unit} | {entry.spread} | {len(entry.values)} "
                f"| {times} | {verdicts if own else ''} |"
            )
        if row.note:
            lines.append(f"| | *{row.note}* | | | | | |")
    return "\n".join(lines) + "\n"


def as_json(rows: Sequence[Row]) -> str:
    """The same for programs."""
    records = [asdict(row) | {"verdicts": row.verdicts()} for row in rows]
    return json.dumps(records, indent=1) + "\n"


def _short(value: float) -> str:
    return f"{value:.4g}"
