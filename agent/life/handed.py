"""What one agent hands to the next when the process re-executes in place: records, by type."""

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


class Handed:
    """Records of the previous agent. Empty at an ordinary start."""

    def __init__(self, records: Iterable[object] = (), pids: tuple[int, ...] = ()) -> None:
        self.records = list(records)
        self.pids = pids
        """Children that a record refers to."""

    def of(self, kind: type[T]) -> T | None:
        """The record of this type, if one was handed over."""
        return next((record for record in self.records if type(record) is kind), None)
