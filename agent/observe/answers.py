"""Answers of the agent's HTTP: records as JSON."""

from collections.abc import Iterable

import msgspec
from aiohttp import web

from agent import safe

PIECE = 32 << 10
"""Bytes of a long answer that are made at once."""


def encode(value: object) -> bytes:
    """A record as JSON, whatever its texts are made of."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(safe.record(msgspec.to_builtins(value)))


async def stream(request: web.Request, records: Iterable[object]) -> web.StreamResponse:
    """A list of records, made and sent a piece at a time, as fast as its reader reads."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    piece = bytearray(b"[")
    for number, record in enumerate(records):
        piece += b"," * (number > 0) + encode(record)
        if len(piece) >= PIECE:
            await response.write(bytes(piece))
            piece.clear()
    await response.write(bytes(piece) + b"]")
    await response.write_eof()
    return response


def answer(value: object, status: int = 200) -> web.Response:
    """A record, or an error as `{"error": words}`."""
    return web.Response(body=encode(value), status=status, content_type="application/json")


def refusal(problem: object, status: int = 400) -> web.Response:
    """Why something is not done."""
    return answer({"error": str(problem)}, status)
