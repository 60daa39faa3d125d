"""The REST API of machines. Their states are deploy/api.py's, as inside the machine."""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from deploy import sizes
from deploy.api import ApiError
from deploy.local import shapes, store
from deploy.local.rest_leases import changing, found, new_lease
from deploy.local.web import answer, body, world
from deploy.local.world import World, identity, merged, now
from deploy.standin import MachineState

_ONE = "/v1/apps/{app}/machines/{machine}"


def add_routes(router: web.UrlDispatcher) -> None:
    """Serve them."""
    router.add_get("/v1/apps/{app}/machines", _list)
    router.add_post("/v1/apps/{app}/machines", _create)
    router.add_get(_ONE, _get)
    router.add_post(_ONE, _update)
    router.add_delete(_ONE, _destroy)
    for order in ("start", "stop", "suspend"):
        router.add_post(f"{_ONE}/{order}", _order(order))
    router.add_post(f"{_ONE}/restart", _restart)
    router.add_get(f"{_ONE}/wait", _wait)
    router.add_post(f"{_ONE}/exec", _exec)
    router.add_get(f"{_ONE}/ps", _ps)
    router.add_get(f"{_ONE}/metadata", _metadata)
    router.add_post(f"{_ONE}/metadata/{{key}}", _set_metadata)
    router.add_delete(f"{_ONE}/metadata/{{key}}", _delete_metadata)


async def machine_info(place: World, machine: store.MachineRecord) -> shapes.MachineInfo:
    """A machine as the API shows it."""
    config = machine.read
    host = place.host(machine.host)
    answers = host.status == "ok"
    running = place.running.get(machine.id)
    checks = []
    if running is not None and answers:
        checks = [await running.check(name, each) for name, each in config.checks.items()]
    events = [_event(each) for each in machine.events]
    return shapes.MachineInfo(
        id=machine.id,
        name=machine.name,
        state=place.state(machine).value,
        region=machine.region,
        image_ref=_image(config.image),
        instance_id=machine.version,
        private_ip="fdaa::1",
        created_at=machine.created_at,
        updated_at=machine.updated_at,
        host_status=host.status,
        config=machine.config if answers else msgspec.UNSET,
        incomplete_config=msgspec.UNSET if answers else machine.config,
        events=events,
        checks=checks,
    )


def _image(text: str) -> shapes.ImageRef:
    registry, slash, rest = text.partition("/")
    if not slash or not ({".", ":"} & set(registry) or registry == "localhost"):
        registry, rest = "docker-hub-mirror.fly.io", text
    name, _, digest = rest.partition("@")
    repository, _, tag = name.partition(":")
    return shapes.ImageRef(registry, repository, tag, digest)


def _event(event: store.Event) -> msgspec.Raw:
    said: dict[str, object] = {
        "type": event.type,
        "status": event.status,
        "source": event.source,
        "timestamp": event.timestamp,
    }
    if event.exit_code is not None:
        code = {"exit_code": event.exit_code, "requested_stop": event.exit_code == 0}
        said["request"] = {"exit_event": code}
    return msgspec.Raw(msgspec.json.encode(said))


async def _list(request: web.Request) -> web.Response:
    place, app = world(request), request.match_info["app"]
    place.app(app)
    return answer([await machine_info(place, each) for each in place.machines(app)])


async def _get(request: web.Request) -> web.Response:
    place, machine = found(request)
    return answer(await machine_info(place, machine))


def _checked(place: World, config: store.Config) -> None:
    guest = config.guest
    size = sizes.Guest(guest.cpu_kind, guest.cpus).preset
    if problem := sizes.problem(size, guest.memory_mb):
        raise ApiError(422, f"invalid config.guest: {problem}")
    if place.conditions.images and config.image not in place.conditions.images:
        raise ApiError(422, f"failed to get manifest {config.image}: image not found")


async def _create(request: web.Request) -> web.Response:
    place, app = world(request), place_app(request)
    wanted = await body(request, shapes.Launch)
    config = msgspec.json.decode(wanted.config, type=store.Config)
    _checked(place, config)
    memory = config.guest.memory_mb
    if config.mounts:
        volume = place.records.volumes.get(config.mounts[0].volume)
        if volume is None or volume.app != app.name:
            raise ApiError(404, f"volume {config.mounts[0].volume} not found")
        if any(config.mounts[0].volume == m.volume for m in _mounts(place, app.name)):
            raise ApiError(412, f"volume {volume.id} is attached to another machine")
        if wanted.region and volume.region != wanted.region:
            raise ApiError(422, f"volume {volume.id} is in region {volume.region}")
        host = place.host(volume.host)
    else:
        host = place.place(wanted.region or place.conditions.hosts[0].region, memory)
    place.reserve(host, memory)
    at = now()
    machine = store.MachineRecord(
        id=identity("d8"),
        app=app.name,
        name=wanted.name or identity("quiet-"),
        region=host.region,
        host=host.name,
        config=wanted.config,
        created_at=at,
        updated_at=at,
        version=identity("01"),
        secrets={name: secret.value for name, secret in app.secrets.items()},
        state=MachineState.CREATED.value,
    )
    place.records.machines[machine.id] = machine
    place.note(machine, "launch", "created", "user")
    lease = new_lease(place, machine.id, wanted.lease_ttl) if wanted.lease_ttl else None
    place.refresh_edges()
    if not wanted.skip_launch:
        running = place.run(machine)
        running.api.do_later(running.standin.wake("it was launched"), after=0.0)
    said = await machine_info(place, machine)
    if lease is not None:
        said = msgspec.structs.replace(said, nonce=lease.nonce)
    return answer(said)


def place_app(request: web.Request) -> store.App:
    """The app of a request. Raises `ApiError`."""
    return world(request).app(request.match_info["app"])


def _mounts(place: World, app: str) -> list[store.Mount]:
    return [mount for each in place.machines(app) for mount in each.read.mounts]


async def _update(request: web.Request) -> web.Response:
    """Make a new version: a running machine ends for it, a suspended one loses its memory."""
    place, machine = changing(request)
    wanted = await body(request, shapes.Launch)
    config = msgspec.json.decode(wanted.config, type=store.Config)
    _checked(place, config)
    if config.mounts != machine.read.mounts:
        before, after = machine.read.mounts, config.mounts
        if [each.volume for each in before] != [each.volume for each in after]:
            raise ApiError(422, "cannot change the volume of a machine")
    host = place.host(machine.host)
    if host.status != "ok":
        raise ApiError(503, f"host {host.name} is unreachable")
    grown = config.guest.memory_mb - machine.read.guest.memory_mb
    if grown > 0:
        place.reserve(host, grown)
    app = place.app(machine.app)
    machine.config, machine.updated_at, machine.version = wanted.config, now(), identity("01")
    machine.secrets = {name: secret.value for name, secret in app.secrets.items()}
    place.note(machine, "update", "replacing", "user")
    running = place.running.get(machine.id)
    if running is not None:
        await running.standin.replace()
        if running.standin.identity.memory_mb != config.guest.memory_mb:
            await running.close()
            del place.running[machine.id]
    machine.state = MachineState.STOPPED.value
    place.refresh_edges()
    running = place.run(machine)
    if not wanted.skip_launch:
        place.note(machine, "launch", "created", "user")
        running.api.do_later(running.standin.wake("it was updated"), after=0.0)
    return answer(await machine_info(place, machine))


async def _destroy(request: web.Request) -> web.Response:
    place, machine = changing(request)
    if place.state(machine) is MachineState.STARTED and request.query.get("kill") != "true":
        raise ApiError(412, "failed_precondition: machine is started: stop it, or force")
    await place.end(machine)
    return answer({"ok": True})


def _order(order: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        place, machine = changing(request)
        host = place.host(machine.host)
        if host.status != "ok":
            raise ApiError(503, f"host {host.name} is unreachable")
        api = place.run(machine).api
        handler = {"start": api.start, "stop": api.stop, "suspend": api.suspend}[order]
        return await handler(request)

    return handle


async def _restart(request: web.Request) -> web.Response:
    place, machine = changing(request)
    running = place.run(machine)

    async def again() -> None:
        await running.standin.stop()
        await running.standin.wake("it is restarted")

    running.api.do_later(again(), after=0.0)
    return answer({"ok": True})


async def _wait(request: web.Request) -> web.StreamResponse:
    place, machine = found(request)
    return await place.run(machine).api.wait(request)


async def _exec(request: web.Request) -> web.Response:
    place, machine = found(request)
    host = place.host(machine.host)
    if host.status != "ok":
        raise ApiError(503, f"host {host.name} is unreachable")
    order = await body(request, shapes.ExecOrder)
    return answer(await place.run(machine).execute(order))


async def _ps(request: web.Request) -> web.Response:
    """The listening processes: flyctl waits for the ports that its configuration names."""
    place, machine = found(request)
    running = place.running.get(machine.id)
    if running is None:
        return answer([])
    ports = {service.internal_port for service in machine.read.services}
    sockets = [
        shapes.ListenSocket("tcp", f"0.0.0.0:{port}")
        for port in sorted(ports)
        if await running.listens(port)
    ]
    return answer([shapes.Process(1, "swarm-agent", sockets)])


async def _metadata(request: web.Request) -> web.Response:
    _, machine = found(request)
    return answer(machine.read.metadata)


async def _set_metadata(request: web.Request) -> web.Response:
    _, machine = found(request)
    given = await body(request, dict[str, str])
    known = machine.read.metadata | {request.match_info["key"]: given.get("value", "")}
    machine.config = merged(machine.config, known)
    return web.Response(status=204)


async def _delete_metadata(request: web.Request) -> web.Response:
    _, machine = found(request)
    key = request.match_info["key"]
    kept = {name: value for name, value in machine.read.metadata.items() if name != key}
    machine.config = merged(machine.config, kept)
    return web.Response(status=204)
