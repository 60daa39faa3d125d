"""Answers of the agent's HTTP: records as JSON."""

import msgspec
from aiohttp import web

from agent import safe


def encode(value: object) -> bytes:
    """A record as JSON, whatever its texts are made of."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(safe.record(msgspec.to_builtins(value)))


def answer(value: object, status: int = 200) -> web.Response:
    """A record, or an error as `{"error": words}`."""
    return web.Response(body=encode(value), status=status, content_type="application/json")


def refusal(problem: object, status: int = 400) -> web.Response:
    """Why something is not done."""
    return answer({"error": str(problem)}, status)
