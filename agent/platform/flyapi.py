"""The Machines API's requests about the machine itself (fly.io/docs/machines/api).

It is HTTP on a Unix socket in the machine; the machine's own app needs no token, and the host name
in the address is ignored.
"""

import asyncio

import msgspec

from agent.http.fetch import FetchError, fetch
from agent.platform.fly import ApiError, FlyMachine
from agent.platform.prices import Size


class _Config(msgspec.Struct, frozen=True):
    guest: Size


class _Machine(msgspec.Struct, frozen=True):
    config: _Config


async def suspend(machine: FlyMachine, patience: float) -> None:
    """Ask Fly to suspend the machine, and wait for the answer.

    The answer may come before the freeze or after the resume. Raises `ApiError`.
    """
    await _ask(machine, "POST", "/suspend", patience)


async def size(machine: FlyMachine, patience: float) -> Size:
    """The size of the machine as bought. Raises `ApiError`."""
    body = await _ask(machine, "GET", "", patience)
    try:
        return msgspec.json.decode(body, type=_Machine).config.guest
    except msgspec.DecodeError as error:
        raise ApiError(f"{machine.api}: an unexpected answer: {error}") from error


async def _ask(machine: FlyMachine, method: str, path: str, patience: float) -> bytes:
    url = f"http://localhost/v1/apps/{machine.app}/machines/{machine.machine}{path}"
    try:
        async with asyncio.timeout(patience):
            reply = await fetch(method, url, unix=machine.api)
    except TimeoutError:
        raise ApiError(f"{machine.api} did not answer within {patience:g} s") from None
    except OSError as error:
        raise ApiError(f"{machine.api}: {error.strerror or error}") from error
    except FetchError as error:
        raise ApiError(f"{machine.api}: {error}") from error
    if reply.status >= 400:
        raise ApiError(f"{machine.api}: status {reply.status}: {_reason(reply.body)}")
    return reply.body


def _reason(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=dict[str, str]).get("error", "")
    except msgspec.DecodeError:
        return body[:200].decode("utf-8", "replace")
