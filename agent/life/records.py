"""The state of one run, which survives a re-execution: one object of each kind.

An object with state that must not be lost keeps it in one record, and nowhere else. It is created
from that record, whether the record is new or comes from the previous agent: there is only one
constructor. `reexec.py` passes on all records as they are.
"""

from collections.abc import Callable
from typing import TypeVar, cast

T = TypeVar("T")


class Records:
    """The records of one run by their type. `inherited`: the previous agent left them."""

    def __init__(self) -> None:
        self.inherited = False
        self._kept: dict[type, object] = {}

    def of(self, kind: type[T], make: Callable[[], T]) -> T:
        """The record of this type; created by `make` if there is none yet."""
        if kind not in self._kept:
            self._kept[kind] = make()
        return cast(T, self._kept[kind])

    def find(self, kind: type[T]) -> T | None:
        """The record of this type, if there is one."""
        return cast("T | None", self._kept.get(kind))

    def put(self, record: object) -> None:
        """Store a record, replacing any of the same type."""
        self._kept[type(record)] = record

    def clear(self) -> None:
        """Forget all records."""
        self._kept.clear()


class PartRecords:
    """The records of each part that SSH does not depend on."""

    def __init__(self) -> None:
        self._parts: dict[str, Records] = {}

    def of(self, part: str) -> Records:
        """The records of the part with this name."""
        return self._parts.setdefault(part, Records())
