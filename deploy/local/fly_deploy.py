"""flyctl's deploy: which Dockerfile, image, machine and volume it uses.

It builds no image: builders belong to the platform, and the stand-in has none.
"""

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import msgspec

from deploy import sizes
from deploy.local import shapes
from deploy.local.client import Client, FlyError, RefusedError
from deploy.local.fly_machines import app_machines, changed, update, wait, whole
from deploy.local.fly_volumes import memory_mb, volumes
from deploy.local.surface import Call

Table = dict[str, object]
_SECONDS = {"s": 1, "m": 60, "h": 3600}


class _Release(msgspec.Struct, frozen=True):
    release: shapes.ReleaseInfo


class _Image(msgspec.Struct, frozen=True):
    ref: str


class _App(msgspec.Struct, frozen=True):
    image: _Image | None


class _Resolved(msgspec.Struct, frozen=True):
    app: _App


class _Build(msgspec.Struct, frozen=True):
    dockerfile: str = ""
    image: str = ""


class _Compute(msgspec.Struct, frozen=True):
    size: str = "shared-cpu-1x"
    memory: str | int = ""


class _Mount(msgspec.Struct, frozen=True):
    source: str
    destination: str


class _File(msgspec.Struct, frozen=True):
    """The parts of fly.toml that are used."""

    app: str = ""
    primary_region: str = ""
    build: _Build = _Build()
    env: dict[str, str] = {}
    mounts: list[_Mount] = []
    vm: list[_Compute] = []
    services: list[Table] = []
    checks: dict[str, Table] = {}


def _config(path: Path) -> _File:
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), _File)
    except (OSError, ValueError) as error:
        raise FlyError(f"failed loading app config from {path}: {error}") from error


def _dockerfile(call: Call, config: _File, path: Path, folder: Path) -> Path:
    """The configuration's, relative to *its* folder; else the flag's; else the context's own."""
    if config.build.dockerfile:
        found = path.parent / config.build.dockerfile.lstrip("/")
    elif flag := call.flags.get("--dockerfile"):
        found = folder / flag
    else:
        found = folder / "Dockerfile"
    if not found.exists():
        raise FlyError(
            f"failed to fetch an image or build from source: dockerfile '{found}' not found"
        )
    return found


def _image(call: Call, client: Client, config: _File, path: Path, folder: Path) -> str:
    given = call.flags.get("--image") or config.build.image
    if not given:
        _dockerfile(call, config, path, folder)
        print("==> Building image", flush=True)
        print("Waiting for depot builder...", file=sys.stderr)
        try:
            client.uiex(_Image, "POST", "/builds/depot_builder", {"app_name": call.app})
        except RefusedError as error:
            words = "failed to fetch an image or build from source: error building: "
            raise FlyError(f"{words}ensure depot builder failed: {error}") from error
        raise FlyError("this flyctl builds no images")
    print(f"Searching for image '{given}' remotely...", file=sys.stderr)
    query = """query($appName: String!, $imageRef: String!) {
        app(name: $appName) { image(ref: $imageRef) { ref } } }"""
    try:
        found = client.graph(_Resolved, query, appName=call.app, imageRef=given).app.image
    except FlyError as error:
        words = f"failed to fetch an image or build from source: {error}"
        raise FlyError(words) from error
    if found is None:
        raise FlyError(f'could not find image "{given}"')
    return found.ref


def _guest(config: _File) -> sizes.Guest:
    compute = config.vm[0] if config.vm else _Compute()
    preset = sizes.PRESETS.get(compute.size)
    if preset is None:
        raise FlyError(f"'{compute.size}' is an invalid machine size")
    memory = compute.memory if isinstance(compute.memory, int) else memory_mb(compute.memory or "0")
    return sizes.Guest(preset.cpu_kind, preset.cpus, memory or preset.memory_mb)


def _services(config: _File) -> list[Table]:
    """Services with the API's own names."""
    found = []
    for service in config.services:
        made: Table = {
            name: service[name]
            for name in ("protocol", "internal_port", "ports", "concurrency")
            if name in service
        }
        made["autostart"] = service.get("auto_start_machines", True)
        made["autostop"] = service.get("auto_stop_machines", "off")
        found.append(made)
    return found


def _machine_config(config: _File, image: str, release: shapes.ReleaseInfo) -> Table:
    return {
        "image": image,
        "guest": _guest(config),
        "env": config.env | {"FLY_PROCESS_GROUP": "app", "PRIMARY_REGION": config.primary_region},
        "services": _services(config),
        "checks": config.checks,
        "restart": {"policy": "on-failure", "max_retries": 10},
        "metadata": {
            "fly_platform_version": "v2",
            "fly_process_group": "app",
            "fly_release_id": release.id,
            "fly_release_version": str(release.version),
        },
    }


def _deploy(call: Call) -> None:
    path = Path(call.flags["--config"])
    folder = Path(call.words[0] if call.words else ".")
    config = _config(path)
    client = Client()
    app = call.app
    try:
        client.rest(shapes.AppInfo, "GET", f"/apps/{app}")
        image = _image(call, client, config, path, folder)
        there = app_machines(client, app)
        volume = "" if there else _volume(client, app, config)
        wanted = shapes.CreateRelease(app, image)
        release = client.uiex(_Release, "POST", "/releases", wanted).release
        made = _machine_config(config, image, release)
        for machine in there:
            if machine.host_status != "ok":
                raise FlyError(
                    f"machine '{machine.id}' requires manual intervention, it can't be "
                    "automatically replaced because its volume is on an unreachable host"
                )
            print(f"Updating {machine.id} [app]")
            update(client, app, machine, changed(whole(machine), made))
        if not there:
            _launch(call, client, config, made, volume)
        done = shapes.UpdateRelease("complete")
        client.uiex(shapes.ReleaseInfo, "PATCH", f"/releases/{release.id}", done)
    except RefusedError as error:
        raise FlyError(str(error)) from error
    print(f"Visit your newly deployed app at https://{app}.fly.dev/")


def _volume(client: Client, app: str, config: _File) -> str:
    """An unattached volume of the mount's name in the primary region. Raises `FlyError`."""
    if not config.mounts:
        return ""
    name, region = config.mounts[0].source, config.primary_region
    free = [
        each
        for each in volumes(client, app)
        if each.name == name and each.attached_machine_id is None and each.host_status == "ok"
    ]
    if not free:
        raise FlyError(
            f"creating a new machine in group 'app' requires an unattached '{name}' volume. "
            f"Create it with `fly volume create {name}`"
        )
    here = [each for each in free if each.region == region]
    if not here:
        raise FlyError(
            f"New machine in group 'app' needs an unattached volume named '{name}' in region "
            f"'{region}'"
        )
    return here[0].id


def _launch(call: Call, client: Client, config: _File, made: Table, volume: str) -> None:
    if volume:
        mount = config.mounts[0]
        made["mounts"] = [{"path": mount.destination, "volume": volume, "name": mount.source}]
    order = shapes.Launch(msgspec.Raw(msgspec.json.encode(made)), config.primary_region)
    try:
        found = client.rest(shapes.MachineInfo, "POST", f"/apps/{call.app}/machines", order)
    except RefusedError as error:
        raise FlyError(f"failed to launch VM: {error}") from error
    if "--detach" not in call.flags:
        wait(client, call.app, found.id, "started", 300)
    print(f"Machine {found.id} [app] was created")


COMMANDS: dict[str, Callable[[Call], None]] = {"fly deploy": _deploy}
