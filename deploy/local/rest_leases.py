"""The REST API of machines' leases: who may change a machine until when."""

import time

from aiohttp import web

from deploy.api import ApiError
from deploy.local import shapes, store
from deploy.local.web import answer, world
from deploy.local.world import World, identity

NONCE = "fly-machine-lease-nonce"
_SECONDS = 60


def add_routes(router: web.UrlDispatcher) -> None:
    """Serve them."""
    path = "/v1/apps/{app}/machines/{machine}/lease"
    router.add_get(path, _lease)
    router.add_post(path, _take_lease)
    router.add_delete(path, _release_lease)


def found(request: web.Request) -> tuple[World, store.MachineRecord]:
    """The machine of a request. Raises `ApiError`."""
    place = world(request)
    app, name = request.match_info["app"], request.match_info["machine"]
    place.app(app)
    return place, place.machine(app, name)


def changing(request: web.Request) -> tuple[World, store.MachineRecord]:
    """The same, unless somebody else holds its lease. Raises `ApiError`."""
    place, machine = found(request)
    place.require_lease(machine.id, request.headers.get(NONCE, ""))
    return place, machine


def new_lease(place: World, machine: str, seconds: int, nonce: str = "") -> shapes.LeaseData:
    """A new lease; a nonce extends the lease that has it."""
    until = int(time.time()) + (seconds or _SECONDS)
    lease = shapes.LeaseData(nonce or identity(""), until, place.conditions.account)
    place.leases[machine] = lease
    return lease


async def _lease(request: web.Request) -> web.Response:
    place, machine = found(request)
    lease = place.leases.get(machine.id)
    if lease is None or lease.expires_at <= time.time():
        raise ApiError(404, "lease not found")
    return answer(shapes.LeaseInfo("success", lease))


async def _take_lease(request: web.Request) -> web.Response:
    place, machine = changing(request)
    nonce = request.headers.get(NONCE, "")
    lease = new_lease(place, machine.id, int(request.query.get("ttl", "0")), nonce)
    return answer(shapes.LeaseInfo("success", lease), 201)


async def _release_lease(request: web.Request) -> web.Response:
    place, machine = changing(request)
    place.leases.pop(machine.id, None)
    return answer({"ok": True})
