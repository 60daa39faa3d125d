"""Decodes JSON that any process of the login account may have written."""

from typing import TypeVar

import msgspec

T = TypeVar("T")


def decode(data: bytes | msgspec.Raw, kind: type[T]) -> T:
    """The data as a record of this kind. Raises `ValueError` for anything invalid."""
    try:
        return msgspec.json.decode(data, type=kind)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
