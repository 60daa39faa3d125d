"""`python -m deploy.local.fly …`: takes flyctl's commands and does on this computer what they do.

It imitates: accounts (one), apps and their names, addresses, volumes with regions and snapshots,
secrets that are staged and deployed, deploys (the agent of this checkout; no image is built),
machines that start, stop, suspend, wake by a connection and are reached over the platform's own
channel. It does not imitate: builders, health checks, several machines of an app, organisations,
prices. Its answers have the shape of flyctl's.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

from deploy.local import host, store
from deploy.local.surface import Call, UsageError, parse

VERSION = "0.4.0"

_SIZES = {"shared-cpu-1x": 1, "shared-cpu-2x": 2, "shared-cpu-4x": 4, "shared-cpu-8x": 8}


class FlyError(Exception):
    """What flyctl would say after `Error:`."""


def main() -> int:
    """The exit status."""
    try:
        call = parse(sys.argv[1:])
        return _COMMANDS[call.command](call) or 0
    except (UsageError, FlyError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def _version(_: Call) -> None:
    _say({"Name": "flyctl", "Version": VERSION})


def _whoami(_: Call) -> None:
    with store.opened(store.folder()) as platform:
        _require_account(platform)
        _say({"email": platform.account})


def _apps_list(_: Call) -> None:
    with store.opened(store.folder()) as platform:
        _require_account(platform)
        _say([{"Name": app.name, "Status": "deployed"} for app in platform.apps.values()])


def _apps_create(call: Call) -> None:
    name = call.flags.get("--name") or (call.words[0] if call.words else "")
    with store.opened(store.folder()) as platform:
        _require_account(platform)
        if name in platform.taken or name in platform.apps:
            raise FlyError("Validation failed: Name has already been taken")
        if len(platform.apps) >= platform.most_apps:
            raise FlyError("You have reached your app limit; add a credit card or contact support")
        platform.apps[name] = store.App(name, store.free_host(store.folder(), platform))
        _say({"Name": name})


def _apps_destroy(call: Call) -> None:
    folder = store.folder()
    with store.opened(folder) as platform:
        app = _app(platform, call.words[0])
        host.ask(folder, app.name, "end")
        del platform.apps[app.name]
        for volume in app.volumes:
            shutil.rmtree(folder / "volumes" / volume.id, ignore_errors=True)
        if app.machine is not None:
            shutil.rmtree(folder / "machines" / app.machine.id, ignore_errors=True)
    print(f"Destroyed app {app.name}")


def _volumes_list(call: Call) -> None:
    with store.opened(store.folder()) as platform:
        app = _app(platform, call.app)
        attached = app.machine.volume if app.machine else None
        _say(
            [
                {
                    "id": each.id,
                    "name": each.name,
                    "region": each.region,
                    "size_gb": each.size_gb,
                    "state": "created",
                    "attached_machine_id": app.machine.id
                    if app.machine and each.id == attached
                    else None,
                }
                for each in app.volumes
            ]
        )


def _volumes_create(call: Call) -> None:
    folder = store.folder()
    with store.opened(folder) as platform:
        app = _app(platform, call.app)
        region = call.flags.get("--region", "")
        if region not in platform.regions:
            raise FlyError(f"region {region!r} not found")
        volume = store.Volume(
            _identity("vol"), call.words[0], region, int(call.flags.get("--size", "1"))
        )
        content = folder / "volumes" / volume.id
        content.mkdir(parents=True)
        if snapshot := call.flags.get("--snapshot-id"):
            saved = folder / "snapshots" / snapshot
            if not saved.exists():
                raise FlyError(f"snapshot {snapshot} not found")
            subprocess.run(["cp", "-a", f"{saved}/.", str(content)], check=True)
        app.volumes.append(volume)
        _say({"id": volume.id, "name": volume.name, "region": region, "size_gb": volume.size_gb})


def _snapshots_list(call: Call) -> None:
    with store.opened(store.folder()) as platform:
        volume = _volume(platform, call)
        _say(
            [
                {"id": s.id, "created_at": s.created_at, "status": "created"}
                for s in volume.snapshots
            ]
        )


def _snapshots_create(call: Call) -> None:
    folder = store.folder()
    with store.opened(folder) as platform:
        volume = _volume(platform, call)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        snapshot = store.Snapshot(_identity("vs"), now)
        saved = folder / "snapshots" / snapshot.id
        saved.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", str(folder / "volumes" / volume.id), str(saved)], check=True)
        volume.snapshots.append(snapshot)
        _say({"id": snapshot.id, "created_at": now})


def _ips_list(call: Call) -> None:
    with store.opened(store.folder()) as platform:
        app = _app(platform, call.app)
        _say([{"Address": a, "Type": kind, "Region": "global"} for a, kind in app.addresses])


def _allocate_v4(call: Call) -> None:
    with store.opened(store.folder()) as platform:
        app = _app(platform, call.app)
        kind = "shared_v4" if "--shared" in call.flags else "v4"
        app.addresses.append((app.host, kind))
        print(f"VERSION\tIP\tTYPE\n{kind}\t{app.host}\tpublic")


def _allocate_v6(_: Call) -> None:
    raise FlyError("the stand-in has no IPv6 addresses: allocate-v4")


def _secrets_list(call: Call) -> None:
    with store.opened(store.folder()) as platform:
        app = _app(platform, call.app)
        names = {name for name, text in (app.secrets | app.staged).items() if text is not None}
        _say([{"name": name, "digest": "0"} for name in sorted(names)])


def _secrets_import(call: Call) -> None:
    given = _read_secrets(sys.stdin.read())
    _change_secrets(call, dict(given))


def _secrets_unset(call: Call) -> None:
    _change_secrets(call, dict.fromkeys(call.words))


def _change_secrets(call: Call, changes: dict[str, str | None]) -> None:
    folder = store.folder()
    with store.opened(folder) as platform:
        app = _app(platform, call.app)
        app.staged |= changes
        restart = app.machine is not None and "--stage" not in call.flags
        if restart:
            _apply_staged(app)
    if restart:
        _boot(folder, call.app)


def _apply_staged(app: store.App) -> None:
    merged = app.secrets | app.staged
    app.secrets = {name: text for name, text in merged.items() if text is not None}
    app.staged = {}


def _read_secrets(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    lines = iter(text.splitlines())
    for line in lines:
        name, _, value = line.partition("=")
        if value.startswith('"""'):
            parts = [value[3:]]
            while not parts[-1].endswith('"""'):
                parts.append(next(lines))
            value = "\n".join(parts)[:-3]
        if name.strip():
            found[name.strip()] = value
    return found


def _deploy(call: Call) -> None:
    folder = store.folder()
    config = tomllib.loads(Path(call.flags["--config"]).read_text())
    root = Path(call.words[0] if call.words else ".")
    dockerfile = Path(call.flags.get("--dockerfile") or root / config["build"]["dockerfile"])
    if not dockerfile.exists():
        raise FlyError(f"dockerfile '{dockerfile}' not found")
    with store.opened(folder) as platform:
        app = _app(platform, call.app)
        mount = config["mounts"][0]
        here = [
            each
            for each in app.volumes
            if each.name == mount["source"] and each.region == config["primary_region"]
        ]
        if not here:
            raise FlyError(
                f"machine in region {config['primary_region']} needs a volume named "
                f"{mount['source']!r} there, but none is available"
            )
        _apply_staged(app)
        vm = config["vm"][0]
        identity = app.machine.id if app.machine else _identity("d8")
        app.machine = store.Machine(
            identity,
            config["primary_region"],
            here[0].id,
            dict(config["env"]),
            cpus=_SIZES[vm["size"]],
            memory_mb=int(vm["memory"].removesuffix("gb")) * 1024,
        )
    _boot(folder, call.app)
    print(f"Visit your newly deployed app at https://{call.app}.fly.dev/")


def _boot(folder: Path, name: str) -> None:
    """(Re)start an app's machine with what it is made of now."""
    host.ask(folder, name, "end")
    while host.ask(folder, name, "state") is not None:
        time.sleep(0.05)
    try:
        host.launch(folder, name)
    except host.HostError as error:
        raise FlyError(str(error)) from error


def _machine_list(call: Call) -> None:
    folder = store.folder()
    with store.opened(folder) as platform:
        app = _app(platform, call.app)
        if app.machine is None:
            _say([])
            return
        guest = {
            "cpu_kind": app.machine.cpu_kind,
            "cpus": app.machine.cpus,
            "memory_mb": app.machine.memory_mb,
        }
        answer = host.ask(folder, app.name, "state")
        _say(
            [
                {
                    "id": app.machine.id,
                    "state": answer.state if answer else "stopped",
                    "region": app.machine.region,
                    "config": {"guest": guest},
                }
            ]
        )


def _machine_order(order: str) -> Callable[[Call], None]:
    def run(call: Call) -> None:
        folder = store.folder()
        with store.opened(folder) as platform:
            app = _app(platform, call.app)
        if app.machine is None or call.words[:1] != (app.machine.id,):
            raise FlyError("machine not found")
        if host.ask(folder, app.name, order) is None and order == "start":
            _boot(folder, app.name)

    return run


def _machine_update(call: Call) -> None:
    folder = store.folder()
    with store.opened(folder) as platform:
        app = _app(platform, call.app)
        if app.machine is None or call.words[:1] != (app.machine.id,):
            raise FlyError("machine not found")
        if size := call.flags.get("--vm-size"):
            if size not in _SIZES:
                raise FlyError(f"invalid machine size {size!r}")
            app.machine.cpus = _SIZES[size]
        if memory := call.flags.get("--vm-memory"):
            app.machine.memory_mb = int(memory)
        if app.machine.memory_mb > app.machine.cpus * 2048:
            raise FlyError("memory: too large for this size")
    _boot(folder, call.app)


def _console(call: Call) -> int:
    folder = store.folder()
    with store.opened(folder) as platform:
        app = _app(platform, call.app)
    answer = host.ask(folder, app.name, "state")
    if answer is None or answer.state != "started" or not answer.init:
        raise FlyError(f"app {app.name} has no started VMs")
    inside = ["nsenter", "-t", str(answer.init), "-m", "-p", "-i", "-u"]
    command = ["sh", "-c", call.flags.get("--command", "sh")]
    done = subprocess.run([*inside, *command], env={"PATH": os.environ["PATH"]}, check=False)
    return done.returncode


def _logs(call: Call) -> None:
    folder = store.folder()
    with store.opened(folder) as platform:
        app = _app(platform, call.app)
    print((folder / f"{app.name}.log").read_text(errors="replace"), end="")


def _app(platform: store.Platform, name: str) -> store.App:
    _require_account(platform)
    app = platform.apps.get(name)
    if app is None:
        raise FlyError(f"Could not find App {name!r}")
    return app


def _volume(platform: store.Platform, call: Call) -> store.Volume:
    _require_account(platform)
    for app in platform.apps.values():
        for volume in app.volumes:
            if volume.id == call.words[0]:
                return volume
    raise FlyError(f"volume {call.words[0]} not found")


def _require_account(platform: store.Platform) -> None:
    if not platform.account:
        raise FlyError("no access token available. Please login with 'flyctl auth login'")


def _identity(prefix: str) -> str:
    return f"{prefix}_{os.urandom(7).hex()}"


def _say(value: object) -> None:
    print(json.dumps(value, indent=2))


_COMMANDS: dict[str, Callable[[Call], int | None]] = {
    "fly version": _version,
    "fly auth whoami": _whoami,
    "fly apps list": _apps_list,
    "fly apps create": _apps_create,
    "fly apps destroy": _apps_destroy,
    "fly volumes list": _volumes_list,
    "fly volumes create": _volumes_create,
    "fly volumes snapshots list": _snapshots_list,
    "fly volumes snapshots create": _snapshots_create,
    "fly ips list": _ips_list,
    "fly ips allocate-v4": _allocate_v4,
    "fly ips allocate-v6": _allocate_v6,
    "fly secrets list": _secrets_list,
    "fly secrets import": _secrets_import,
    "fly secrets unset": _secrets_unset,
    "fly deploy": _deploy,
    "fly machine list": _machine_list,
    "fly machine start": _machine_order("start"),
    "fly machine stop": _machine_order("stop"),
    "fly machine suspend": _machine_order("suspend"),
    "fly machine update": _machine_update,
    "fly ssh console": _console,
    "fly logs": _logs,
}

if __name__ == "__main__":
    raise SystemExit(main())
