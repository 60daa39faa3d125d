"""Answers of the agent's HTTP: records as JSON."""

from collections.abc import Iterable, Iterator

import msgspec

from agent import safe
from agent.http.messages import Answer

PIECE = 32 << 10
"""Bytes of a long answer that are built at once."""


def encode(value: object) -> bytes:
    """A record as JSON, whatever bytes its texts contain."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(safe.record(msgspec.to_builtins(value)))


def stream(records: Iterable[object]) -> Answer:
    """A list of records, built and sent in pieces, as fast as the client reads."""
    return Answer(_pieces(records))


def answer(value: object, status: int = 200) -> Answer:
    """A record, or an error as `{"error": words}`."""
    return Answer(encode(value), status)


def refusal(problem: object, status: int = 400) -> Answer:
    """An error answer: why the request is refused."""
    return answer({"error": str(problem)}, status)


def _pieces(records: Iterable[object]) -> Iterator[bytes]:
    piece = bytearray(b"[")
    for number, record in enumerate(records):
        piece += b"," * (number > 0) + encode(record)
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece) + b"]"
