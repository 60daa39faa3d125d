"""The REST API of volumes and their snapshots; contents are copied with cp -a."""

import asyncio
from pathlib import Path

from aiohttp import web

from deploy.api import ApiError
from deploy.local import shapes, store
from deploy.local.web import answer, body, world
from deploy.local.world import World, identity, now

_ALL = "/v1/apps/{app}/volumes"
_ONE = "/v1/apps/{app}/volumes/{volume}"
_GB = 1 << 30
COPY_TRIES = 5
SNAPSHOT_SECONDS = 0.3
"""The least seconds that a snapshot takes; the request does not wait for it."""


def add_routes(router: web.UrlDispatcher) -> None:
    """Serve them."""
    router.add_get(_ALL, _list)
    router.add_post(_ALL, _create)
    router.add_get(_ONE, _get)
    router.add_put(_ONE, _update)
    router.add_delete(_ONE, _delete)
    router.add_put(f"{_ONE}/extend", _extend)
    router.add_get(f"{_ONE}/snapshots", _snapshots)
    router.add_post(f"{_ONE}/snapshots", _create_snapshot)


def volume_info(place: World, volume: store.Volume) -> shapes.VolumeInfo:
    """A volume as the API shows it."""
    attached = [
        machine.id
        for machine in place.machines(volume.app)
        for mount in machine.read.mounts
        if mount.volume == volume.id
    ]
    return shapes.VolumeInfo(
        id=volume.id,
        name=volume.name,
        state=volume.state,
        size_gb=volume.size_gb,
        region=volume.region,
        zone=volume.host,
        encrypted=True,
        attached_machine_id=attached[0] if attached else None,
        attached_alloc_id=None,
        created_at=volume.created_at,
        snapshot_retention=volume.snapshot_retention,
        auto_backup_enabled=volume.scheduled_snapshots,
        host_status=place.host(volume.host).status,
    )


def _found(request: web.Request, *, gone: bool = False) -> tuple[World, store.Volume]:
    place = world(request)
    app = request.match_info["app"]
    if not gone:
        place.app(app)
    volume = place.records.volumes.get(request.match_info["volume"])
    if volume is None or volume.app != app:
        raise ApiError(404, "volume not found")
    return place, volume


async def _list(request: web.Request) -> web.Response:
    place, app = world(request), request.match_info["app"]
    place.app(app)
    return answer([volume_info(place, each) for each in place.volumes(app)])


async def _get(request: web.Request) -> web.Response:
    place, volume = _found(request)
    return answer(volume_info(place, volume))


async def _create(request: web.Request) -> web.Response:
    place, app = world(request), world(request).app(request.match_info["app"])
    wanted = await body(request, shapes.CreateVolume)
    memory = (wanted.compute or shapes.Compute()).memory_mb
    source: Path | None = None
    region, size, retention = wanted.region, wanted.size_gb or 1, wanted.snapshot_retention
    if wanted.snapshot_id:
        found = [each for each in place.records.snapshots if each.id == wanted.snapshot_id]
        if not found:
            raise ApiError(404, f"snapshot {wanted.snapshot_id} not found")
        if size < found[0].size_gb:
            raise ApiError(
                422,
                f"volume size {size} GB is smaller than the snapshot's {found[0].size_gb} GB",
            )
        source = place.folder / "snapshots" / wanted.snapshot_id
    elif wanted.source_volume_id:
        original = place.records.volumes.get(wanted.source_volume_id)
        if original is None or original.app != app.name:
            raise ApiError(404, "source volume not found")
        if place.host(original.host).status != "ok":
            raise ApiError(503, f"host {original.host} is unreachable")
        source = place.folder / "volumes" / original.id
        region, size = region or original.region, original.size_gb
        retention = retention or original.snapshot_retention
    host = place.place(region, memory)
    volume = store.Volume(
        id=identity("vol_"),
        app=app.name,
        name=wanted.name,
        region=region,
        size_gb=size,
        host=host.name,
        created_at=now(),
        snapshot_retention=5 if retention is None else retention,
        scheduled_snapshots=wanted.auto_backup_enabled is not False,
    )
    content = place.folder / "volumes" / volume.id
    content.mkdir(parents=True)
    if source is not None:
        await _copy(source, content)
    place.records.volumes[volume.id] = volume
    return answer(volume_info(place, volume))


async def _update(request: web.Request) -> web.Response:
    place, volume = _found(request)
    wanted = await body(request, shapes.UpdateVolume)
    if wanted.snapshot_retention is not None:
        if not 1 <= wanted.snapshot_retention <= 60:
            raise ApiError(422, "snapshot retention must be 1 to 60 days")
        volume.snapshot_retention = wanted.snapshot_retention
    if wanted.auto_backup_enabled is not None:
        volume.scheduled_snapshots = wanted.auto_backup_enabled
    return answer(volume_info(place, volume))


async def _extend(request: web.Request) -> web.Response:
    place, volume = _found(request)
    size = (await body(request, shapes.ExtendVolume)).size_gb
    if size <= volume.size_gb:
        raise ApiError(422, f"a volume can only grow: it has {volume.size_gb} GB")
    volume.size_gb = size
    return answer(shapes.Extended(volume_info(place, volume), needs_restart=False))


async def _delete(request: web.Request) -> web.Response:
    place, volume = _found(request)
    if volume_info(place, volume).attached_machine_id:
        raise ApiError(412, "volume is attached to a machine")
    volume.state = "pending_destroy"
    said = volume_info(place, volume)
    return answer(said)


async def _snapshots(request: web.Request) -> web.Response:
    place, volume = _found(request, gone=True)
    listed = [
        shapes.SnapshotInfo(
            id=each.id,
            size=_GB // 100,
            volume_size=each.size_gb * _GB,
            digest="",
            created_at=each.created_at,
            status=each.status,
            retention_days=each.retention_days,
        )
        for each in place.records.snapshots
        if each.volume == volume.id
    ]
    return answer(listed)


async def _create_snapshot(request: web.Request) -> web.Response:
    place, volume = _found(request)
    if place.host(volume.host).status != "ok":
        raise ApiError(503, f"host {volume.host} is unreachable")
    snapshot = store.Snapshot(
        "", volume.id, now(), volume.size_gb, volume.snapshot_retention, "pending"
    )
    place.records.snapshots.append(snapshot)

    async def make() -> None:
        await asyncio.sleep(SNAPSHOT_SECONDS)
        name = identity("vs_")
        target = place.folder / "snapshots" / name
        target.mkdir(parents=True)
        await _copy(place.folder / "volumes" / volume.id, target)
        snapshot.id, snapshot.status = name, "created"
        place.keep()

    place.later(make())
    return web.Response(status=202)


async def _copy(source: Path, target: Path) -> None:
    # A volume in use changes meanwhile: where a file was gone before its turn, cp says so.
    for _ in range(COPY_TRIES):
        copy = await asyncio.create_subprocess_exec("cp", "-a", f"{source}/.", str(target))
        if await copy.wait() == 0:
            return
    raise ApiError(500, f"cannot copy {source}")
