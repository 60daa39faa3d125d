"""Shared by all parts of the stand-in's API: request bodies, answers, refusals as JSON."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from deploy.api import ApiError
from deploy.local.world import World

T = TypeVar("T")
WORLD = web.AppKey("world", World)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def world(request: web.Request) -> World:
    """The platform that serves the request."""
    return request.app[WORLD]


async def body(request: web.Request, shape: type[T]) -> T:
    """The request's body as a record. Raises `ApiError`."""
    try:
        return msgspec.json.decode(await request.read(), type=shape)
    except msgspec.DecodeError as error:
        raise ApiError(400, f"invalid request body: {error}") from error


def answer(record: object, status: int = 200) -> web.Response:
    """A record as JSON."""
    return web.Response(
        body=msgspec.json.encode(record), content_type="application/json", status=status
    )
