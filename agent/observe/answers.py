"""Answers of the agent's HTTP: records as JSON."""

import msgspec
from aiohttp import web


def answer(value: object, status: int = 200) -> web.Response:
    """A record, or an error as `{"error": words}`."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )


def refusal(problem: object, status: int = 400) -> web.Response:
    """Why something is not done."""
    return answer({"error": str(problem)}, status)
