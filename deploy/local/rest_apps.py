"""The REST API of apps, their addresses and secrets (api.machines.dev)."""

import hashlib
import re

from aiohttp import web

from deploy.api import ApiError
from deploy.local import shapes, store
from deploy.local.web import answer, body, world
from deploy.local.world import World, identity, now

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def add_routes(router: web.UrlDispatcher) -> None:
    """Serve them."""
    router.add_get("/v1/platform/regions", _regions)
    router.add_get("/v1/apps", _list)
    router.add_post("/v1/apps", _create)
    router.add_get("/v1/apps/{app}", _get)
    router.add_delete("/v1/apps/{app}", _delete)
    router.add_get("/v1/apps/{app}/ip_assignments", _addresses)
    router.add_get("/v1/apps/{app}/secrets", _secrets)
    router.add_post("/v1/apps/{app}/secrets", _update_secrets)


def app_info(place: World, app: store.App) -> shapes.AppInfo:
    """An app as the API shows it."""
    machines = place.machines(app.name)
    status = "deployed" if machines else ("suspended" if app.releases else "pending")
    org = next(each for each in place.conditions.organizations if each.slug == app.org)
    return shapes.AppInfo(
        id=f"app{app.id}",
        name=app.name,
        internal_numeric_id=app.id,
        network="default",
        status=status,
        machine_count=len(machines),
        volume_count=len(place.volumes(app.name)),
        organization=shapes.OrgInfo(org.name, org.slug),
    )


def allocate(place: World, app: store.App, kind: str) -> store.Address:
    """A new address of an app on this computer. Raises `ApiError`."""
    if kind == "v6":
        # The loopback has only one.
        if any(a.type == "v6" for each in place.records.apps.values() for a in each.addresses):
            raise ApiError(422, "this computer has one IPv6 loopback address, and an app has it")
        text = "::1"
    elif kind in ("v4", "shared_v4"):
        text = app.loopback
    else:
        raise ApiError(422, f"this stand-in has no addresses of type {kind}")
    address = store.Address(identity("ip_"), text, kind, now())
    app.addresses.append(address)
    place.refresh_edges()
    return address


def secret_info(name: str, secret: store.Secret) -> shapes.SecretInfo:
    """A secret as the API shows it."""
    digest = hashlib.sha256(secret.value.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return shapes.SecretInfo(name, digest, secret.updated_at, secret.updated_at)


async def _regions(request: web.Request) -> web.Response:
    regions = sorted({host.region for host in world(request).conditions.hosts})
    listed = [{"code": code, "name": code.upper()} for code in regions]
    return answer({"Regions": listed, "Nearest": regions[0] if regions else ""})


async def _list(request: web.Request) -> web.Response:
    place = world(request)
    apps = [app_info(place, app) for app in place.records.apps.values()]
    return answer({"total_apps": len(apps), "apps": apps})


async def _create(request: web.Request) -> web.Response:
    place, wanted = world(request), await body(request, shapes.CreateApp)
    if wanted.name in place.conditions.taken or wanted.name in place.records.apps:
        raise ApiError(422, "Validation failed: Name has already been taken", "name_taken")
    if not _NAME.fullmatch(wanted.name):
        raise ApiError(422, "Validation failed: Name is invalid")
    if wanted.org_slug not in [each.slug for each in place.conditions.organizations]:
        raise ApiError(404, "organization not found")
    if len(place.records.apps) >= place.conditions.most_apps:
        raise ApiError(
            422, "You have reached your app limit; please add a payment method to your account"
        )
    place.records.next_id += 1
    loopback = store.free_loopback(place.folder, place.records)
    app = store.App(place.records.next_id, wanted.name, wanted.org_slug, loopback, now())
    place.records.apps[app.name] = app
    return answer(app_info(place, app), 201)


async def _get(request: web.Request) -> web.Response:
    place, name = world(request), request.match_info["app"]
    if name in place.conditions.taken:
        raise ApiError(403, "forbidden")
    return answer(app_info(place, place.app(name)))


async def _delete(request: web.Request) -> web.Response:
    place, name = world(request), request.match_info["app"]
    place.app(name)
    for machine in place.machines(name):
        await place.end(machine)
    for volume in place.volumes(name):
        volume.state = "pending_destroy"
    del place.records.apps[name]
    place.refresh_edges()
    return web.Response(status=202)


async def _addresses(request: web.Request) -> web.Response:
    app = world(request).app(request.match_info["app"])
    listed = [
        shapes.Assigned(each.address, "global", "", each.type == "shared_v4", each.created_at)
        for each in app.addresses
    ]
    return answer({"ips": listed})


async def _secrets(request: web.Request) -> web.Response:
    app = world(request).app(request.match_info["app"])
    listed = [secret_info(name, secret) for name, secret in sorted(app.secrets.items())]
    return answer({"secrets": listed})


async def _update_secrets(request: web.Request) -> web.Response:
    app = world(request).app(request.match_info["app"])
    changes = (await body(request, shapes.UpdateSecrets)).values
    for name, value in changes.items():
        if value is not None and not _SECRET.fullmatch(name):
            raise ApiError(422, f"invalid secret name {name!r}")
        if value is not None and "\0" in value:
            raise ApiError(422, f"secret {name} has a NUL byte")
    for name, value in changes.items():
        if value is None:
            app.secrets.pop(name, None)
        else:
            app.secrets[name] = store.Secret(value, now())
    app.secrets_version += 1
    listed = [secret_info(name, secret) for name, secret in sorted(app.secrets.items())]
    return answer({"secrets": listed, "version": app.secrets_version})
