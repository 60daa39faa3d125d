"""The REST API of api.fly.io that flyctl asks at every deploy: organisations, releases, builders.

There is no builder: a request for one is recorded and refused.
"""

from aiohttp import web

from deploy.api import ApiError
from deploy.local import shapes, store
from deploy.local.web import answer, body, world
from deploy.local.world import World, identity, now

NO_BUILDER = "this stand-in builds no images: deploy one with --image"


def add_routes(router: web.UrlDispatcher) -> None:
    """Serve it."""
    router.add_get("/api/v1/organizations", _organizations)
    router.add_get("/api/v1/organizations/{org}", _organization)
    router.add_post("/api/v1/organizations/{org}/builders", _builder)
    router.add_post("/api/v1/builds", _build)
    router.add_post("/api/v1/builds/finish", _build)
    router.add_post("/api/v1/builds/depot_builder", _builder)
    router.add_get("/api/v1/apps/{app}/releases", _releases)
    router.add_get("/api/v1/apps/{app}/releases/current", _current)
    router.add_post("/api/v1/releases", _create)
    router.add_patch("/api/v1/releases/{release}", _update)
    router.add_get("/api/v1/apps/{app}/logs", _logs)


def _full(each: store.Organization) -> shapes.OrgFull:
    personal = each.type == "PERSONAL"
    return shapes.OrgFull(f"org-{each.slug}", 1, each.slug, each.slug, each.name, personal)


async def _organizations(request: web.Request) -> web.Response:
    listed = [_full(each) for each in world(request).conditions.organizations]
    return answer({"organizations": listed})


async def _organization(request: web.Request) -> web.Response:
    slug = request.match_info["org"]
    for each in world(request).conditions.organizations:
        if each.slug == slug:
            return answer({"organization": _full(each)})
    raise ApiError(404, "organization not found")


async def _build(request: web.Request) -> web.Response:
    del request
    return answer({"id": 1, "status": "running", "wallclock_time_ms": 1})


async def _builder(request: web.Request) -> web.Response:
    world(request).builders_asked.append(request.path)
    raise ApiError(422, NO_BUILDER)


def _info(release: store.Release) -> shapes.ReleaseInfo:
    return shapes.ReleaseInfo(
        release.id, release.version, release.status, release.image_ref, release.created_at
    )


async def _releases(request: web.Request) -> web.Response:
    app = world(request).app(request.match_info["app"])
    return answer({"releases": [_info(each) for each in reversed(app.releases)]})


async def _current(request: web.Request) -> web.Response:
    app = world(request).app(request.match_info["app"])
    if not app.releases:
        raise ApiError(404, "release not found")
    return answer(_info(app.releases[-1]))


async def _create(request: web.Request) -> web.Response:
    place, wanted = world(request), await body(request, shapes.CreateRelease)
    app = place.app(wanted.app_name)
    version = len(app.releases) + 1
    release = store.Release(
        identity("rel_"), version, "pending", wanted.image, now(), wanted.definition
    )
    app.releases.append(release)
    return answer({"release": _info(release)}, 201)


async def _update(request: web.Request) -> web.Response:
    release = _find(world(request), request.match_info["release"])
    release.status = (await body(request, shapes.UpdateRelease)).status
    return answer(_info(release))


def _find(place: World, name: str) -> store.Release:
    for app in place.records.apps.values():
        for release in app.releases:
            if release.id == name:
                return release
    raise ApiError(404, "release not found")


async def _logs(request: web.Request) -> web.Response:
    """The last lines, or those after `next_token` (a byte offset in the log)."""
    place, app = world(request), world(request).app(request.match_info["app"])
    path = place.folder / "logs" / f"{app.name}.log"
    content = path.read_bytes() if path.exists() else b""
    begin = int(request.query.get("next_token") or max(0, len(content) - (64 << 10)))
    lines = content[begin:].decode(errors="replace").splitlines()
    data = [
        {
            "id": str(number),
            "attributes": {
                "timestamp": now(),
                "message": line,
                "level": "info",
                "instance": "",
                "region": "",
                "meta": {},
            },
        }
        for number, line in enumerate(lines)
    ]
    return answer({"data": data, "meta": {"next_token": str(len(content))}})
