"""flyctl's commands for volumes and snapshots."""

import sys
from collections.abc import Callable
from contextlib import suppress

import msgspec

from deploy import sizes
from deploy.local import shapes
from deploy.local.client import Client, FlyError
from deploy.local.fly_apps import regions, require_app, require_yes, say
from deploy.local.surface import Call, UsageError

_GONE = ("scheduling_destroy", "waiting_for_detach", "pending_destroy", "destroying")


class _Name(msgspec.Struct, frozen=True):
    name: str


class _OfVolume(msgspec.Struct, frozen=True):
    app: _Name


class _Volume(msgspec.Struct, frozen=True):
    volume: _OfVolume


def volumes(client: Client, app: str) -> list[shapes.VolumeInfo]:
    """The app's volumes that are not being destroyed."""
    found = client.rest(list[shapes.VolumeInfo], "GET", f"/apps/{app}/volumes")
    return [each for each in found if each.state not in _GONE]


def guest(call: Call, default: sizes.Guest) -> sizes.Guest:
    """The size that --vm-size and --vm-memory ask for. Raises `FlyError`."""
    found = default
    if size := call.flags.get("--vm-size"):
        preset = sizes.PRESETS.get(size)
        if preset is None:
            raise FlyError(
                f"'{size}' is an invalid machine size, choose one of: {[*sizes.PRESETS]}"
            )
        found = preset
    if memory := call.flags.get("--vm-memory"):
        found = sizes.Guest(found.cpu_kind, found.cpus, memory_mb(memory))
    return found


def memory_mb(text: str) -> int:
    """MB of `2048`, `2gb`, `512mb`. Raises `FlyError`."""
    lower = text.lower().removesuffix("b")
    number, factor = (lower[:-1], 1024) if lower.endswith("g") else (lower.removesuffix("m"), 1)
    if not number.isdigit():
        raise FlyError(f"invalid memory value '{text}'")
    return int(number) * factor


def _show(call: Call, volume: shapes.VolumeInfo) -> None:
    if "--json" in call.flags:
        say(volume)
    else:
        print(f"{'ID:':>20} {volume.id}\n{'Name:':>20} {volume.name}")


def _list(call: Call) -> None:
    client = Client()
    require_app(client, call.app)
    say(volumes(client, call.app))


def _create(call: Call) -> None:
    client = Client()
    require_yes(call)
    require_app(client, call.app)
    region = call.flags.get("--region", "")
    if not region:
        raise FlyError("region code must be specified when not running interactively")
    if region not in regions(client):
        raise FlyError(f"region {region} not found")
    size = guest(call, sizes.PRESETS["shared-cpu-1x"])
    wanted = shapes.CreateVolume(
        name=call.words[0],
        region=region,
        size_gb=int(call.flags.get("--size", "1")),
        snapshot_retention=int(call.flags.get("--snapshot-retention", "5")),
        snapshot_id=call.flags.get("--snapshot-id"),
        compute=shapes.Compute(size.cpu_kind, size.cpus, size.memory_mb),
    )
    made = client.rest(shapes.VolumeInfo, "POST", f"/apps/{call.app}/volumes", wanted)
    _show(call, made)


def _fork(call: Call) -> None:
    client = Client()
    app = call.app
    found = client.rest(shapes.VolumeInfo, "GET", f"/apps/{app}/volumes/{call.words[0]}")
    if found.host_status != "ok":
        raise FlyError(
            f"can't fork volume {found.id}: it's on a host that is currently unavailable or "
            f'unreachable (host status: "{found.host_status}").'
        )
    size = guest(call, sizes.PRESETS["shared-cpu-1x"])
    wanted = shapes.CreateVolume(
        name=call.flags.get("--name") or found.name,
        region=call.flags.get("--region", ""),
        source_volume_id=found.id,
        compute=shapes.Compute(size.cpu_kind, size.cpus, size.memory_mb),
    )
    _show(call, client.rest(shapes.VolumeInfo, "POST", f"/apps/{app}/volumes", wanted))


def _extend(call: Call) -> None:
    client = Client()
    require_app(client, call.app)
    text = call.flags.get("--size", "")
    if not text.strip("+").isdigit():
        raise FlyError("Volume size must be specified")
    path = f"/apps/{call.app}/volumes/{call.words[0]}"
    size = int(text.strip("+"))
    if text.startswith("+"):
        size += client.rest(shapes.VolumeInfo, "GET", path).size_gb
    wanted = shapes.ExtendVolume(size)
    made = client.rest(shapes.Extended, "PUT", f"{path}/extend", wanted)
    _show(call, made.volume)


def _update(call: Call) -> None:
    client = Client()
    days = call.flags.get("--snapshot-retention")
    wanted = shapes.UpdateVolume(None if days is None else int(days))
    path = f"/apps/{call.app}/volumes/{call.words[0]}"
    _show(call, client.rest(shapes.VolumeInfo, "PUT", path, wanted))


def _destroy(call: Call) -> None:
    client = Client()
    require_yes(call)
    for name in call.words:
        client.rest(msgspec.Raw, "DELETE", f"/apps/{call.app}/volumes/{name}")
        print(f"Destroyed volume ID: {name}")


def _app_of(client: Client, call: Call) -> str:
    with suppress(UsageError):
        return call.app
    query = "query($id: ID!) { volume: volume(id: $id) { app { name } } }"
    return client.graph(_Volume, query, id=call.words[0]).volume.app.name


def _snapshots_list(call: Call) -> None:
    client = Client()
    path = f"/apps/{_app_of(client, call)}/volumes/{call.words[0]}/snapshots"
    found = client.rest(list[shapes.SnapshotInfo], "GET", path)
    found.sort(key=lambda each: each.created_at)
    if "--json" in call.flags:
        say(found)
    elif not found:
        print(f"No snapshots available for volume {call.words[0]}", file=sys.stderr)
    else:
        print("\n".join(f"{each.id or '(pending)'}\t{each.status}" for each in found))


def _snapshots_create(call: Call) -> None:
    client = Client()
    path = f"/apps/{_app_of(client, call)}/volumes/{call.words[0]}/snapshots"
    client.rest(msgspec.Raw, "POST", path)
    print(f"Scheduled to snapshot volume {call.words[0]}")


COMMANDS: dict[str, Callable[[Call], None]] = {
    "fly volumes list": _list,
    "fly volumes create": _create,
    "fly volumes fork": _fork,
    "fly volumes extend": _extend,
    "fly volumes update": _update,
    "fly volumes destroy": _destroy,
    "fly volumes snapshots list": _snapshots_list,
    "fly volumes snapshots create": _snapshots_create,
}
