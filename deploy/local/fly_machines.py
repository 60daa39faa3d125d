"""flyctl's commands for machines: starts do not wait, changes hold a lease."""

import sys
import time
from collections.abc import Callable

import msgspec

from deploy import sizes
from deploy.local import shapes, store
from deploy.local.client import Client, FlyError, RefusedError
from deploy.local.fly_apps import require_yes, say
from deploy.local.fly_volumes import guest
from deploy.local.surface import Call

_ASLEEP = ("stopped", "suspended", "created")
_WAIT = 60


def machines(client: Client, app: str) -> list[shapes.MachineInfo]:
    """All machines of an app, including console machines."""
    try:
        return client.rest(list[shapes.MachineInfo], "GET", f"/apps/{app}/machines")
    except RefusedError as error:
        raise FlyError(f"failed to list VMs: {error}") from error


def app_machines(client: Client, app: str) -> list[shapes.MachineInfo]:
    """The machines that a deploy updates."""
    return [each for each in machines(client, app) if read(each).metadata.get("fly_process_group")]


def read(machine: shapes.MachineInfo) -> store.Config:
    """A machine's configuration, complete or incomplete."""
    for raw in (machine.config, machine.incomplete_config):
        if isinstance(raw, msgspec.Raw):
            return msgspec.json.decode(raw, type=store.Config)
    return store.Config()


def whole(machine: shapes.MachineInfo) -> msgspec.Raw:
    """A machine's whole configuration. Raises `FlyError` if its host does not answer."""
    if isinstance(machine.config, msgspec.Raw) and machine.host_status == "ok":
        return machine.config
    raise FlyError("the machine is on an unreachable host, try again later")


def one(client: Client, call: Call, app: str) -> shapes.MachineInfo:
    """The machine that the command names. Raises `FlyError`."""
    if not call.words:
        raise FlyError("a machine ID must be specified when not running interactively")
    return _get(client, app, call.words[0])


def _get(client: Client, app: str, name: str) -> shapes.MachineInfo:
    try:
        return client.rest(shapes.MachineInfo, "GET", f"/apps/{app}/machines/{name}")
    except RefusedError as error:
        if "machine not found" in str(error):
            raise FlyError(f"machine {name} was not found in app '{app}'") from error
        raise FlyError(f"could not get machine {name}: failed to get VM {name}: {error}") from error


def _lease(client: Client, app: str, name: str) -> str:
    path = f"/apps/{app}/machines/{name}/lease?ttl=13"
    return client.rest(shapes.LeaseInfo, "POST", path).data.nonce


def _release(client: Client, app: str, name: str, nonce: str) -> None:
    client.rest(msgspec.Raw, "DELETE", f"/apps/{app}/machines/{name}/lease", nonce=nonce)


def _order(client: Client, app: str, name: str, order: str, body: object = None) -> None:
    nonce = _lease(client, app, name)
    try:
        path = f"/apps/{app}/machines/{name}/{order}"
        client.rest(msgspec.Raw, "POST", path, body, nonce=nonce)
    except RefusedError as error:
        words = f"could not {order} machine {name}: failed to {order} VM {name}: {error}"
        raise FlyError(words) from error
    finally:
        _release(client, app, name, nonce)


def wait(client: Client, app: str, name: str, state: str, seconds: float = _WAIT) -> None:
    """Wait for a state with the API's own wait. Raises `FlyError`."""
    limit = max(1, min(int(seconds), _WAIT))
    path = f"/apps/{app}/machines/{name}/wait?state={state}&timeout={limit}"
    end = time.monotonic() + seconds
    while True:
        try:
            client.rest(msgspec.Raw, "GET", path)
        except RefusedError as error:
            if time.monotonic() > end:
                raise FlyError(f"failed to wait for VM {name} in {state} state: {error}") from error
            time.sleep(0.5)
        else:
            return


def update(
    client: Client,
    app: str,
    machine: shapes.MachineInfo,
    config: msgspec.Raw | None = None,
    *,
    skip_launch: bool | None = None,
) -> None:
    """Make a new version of a machine; a sleeping one stays asleep by default."""
    wanted = config or whole(machine)
    asleep = machine.state in _ASLEEP
    order = shapes.Launch(
        config=wanted,
        region=machine.region,
        name=machine.name,
        skip_launch=asleep if skip_launch is None else skip_launch,
    )
    nonce = _lease(client, app, machine.id)
    try:
        path = f"/apps/{app}/machines/{machine.id}"
        client.rest(shapes.MachineInfo, "POST", path, order, nonce=nonce)
        if not order.skip_launch:
            wait(client, app, machine.id, "started", 300)
    except RefusedError as error:
        words = f"could not update machine {machine.id}: failed to update VM {machine.id}: {error}"
        raise FlyError(words) from error
    finally:
        _release(client, app, machine.id, nonce)


def changed(config: msgspec.Raw, changes: dict[str, object]) -> msgspec.Raw:
    """A configuration with some of its parts replaced."""
    whole = msgspec.json.decode(config, type=dict[str, msgspec.Raw])
    whole |= {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in changes.items()}
    return msgspec.Raw(msgspec.json.encode(whole))


def _list(call: Call) -> None:
    found = machines(Client(), call.app)
    if "--json" in call.flags:
        say(found)
    else:
        print("\n".join(each.id for each in found))


def _start(call: Call) -> None:
    client = Client()
    machine = one(client, call, call.app)
    _order(client, call.app, machine.id, "start")
    print(f"{machine.id} has been started")


def _stop(call: Call) -> None:
    client = Client()
    machine = one(client, call, call.app)
    print(f"Sending kill signal to machine {machine.id}...")
    body = {"signal": call.flags.get("--signal", "").upper()}
    if timeout := call.flags.get("--timeout"):
        body["timeout"] = f"{timeout}s"
    _order(client, call.app, machine.id, "stop", body)
    if limit := call.flags.get("--wait-timeout"):
        wait(client, call.app, machine.id, "stopped", _duration(limit))
    print(f"{machine.id} has been successfully stopped")


def _suspend(call: Call) -> None:
    client = Client()
    machine = one(client, call, call.app)
    _order(client, call.app, machine.id, "suspend")
    if limit := call.flags.get("--wait-timeout"):
        wait(client, call.app, machine.id, "suspended", _duration(limit))
        print(f"{machine.id} has been suspended")
    else:
        print(f"{machine.id} is being suspended")


def _restart(call: Call) -> None:
    client = Client()
    machine = one(client, call, call.app)
    print(f"Restarting machine {machine.id}")
    _order(client, call.app, machine.id, "restart")
    wait(client, call.app, machine.id, "started", 300)
    print(f"Machine {machine.id} restarted successfully!")


def _update(call: Call) -> None:
    client = Client()
    machine = one(client, call, call.app)
    config, before = whole(machine), read(machine)
    size = guest(
        call, sizes.Guest(before.guest.cpu_kind, before.guest.cpus, before.guest.memory_mb)
    )
    if problem := sizes.problem(size.preset, size.memory_mb):
        raise FlyError(f"invalid memory size: {problem}")
    changes: dict[str, object] = {"guest": size}
    if "--autostart" in call.flags:
        services = msgspec.json.decode(config, type=dict[str, msgspec.Raw])["services"]
        listed = msgspec.json.decode(services, type=list[dict[str, object]])
        on = call.flags["--autostart"] == "true"
        changes["services"] = [each | {"autostart": on} for each in listed]
    if image := call.flags.get("--image"):
        changes["image"] = image
    require_yes(call)
    print(f"Updating machine {machine.id}")
    skip = "--skip-start" in call.flags
    update(client, call.app, machine, changed(config, changes), skip_launch=skip)
    print(f"Machine {machine.id} updated successfully!")


def _clone(call: Call) -> None:
    client = Client()
    app, source = call.app, one(client, call, call.app)
    volume = call.flags.get("--attach-volume", "").partition(":")[0]
    region = call.flags.get("--region", "")
    if volume:
        found = client.rest(shapes.VolumeInfo, "GET", f"/apps/{app}/volumes/{volume}")
        if region and region != found.region:
            raise FlyError(
                f"specified region {region} but volume is in region {found.region}, use the same "
                "region as the volume"
            )
        region = found.region
    size = read(source).guest
    size = guest(call, sizes.Guest(size.cpu_kind, size.cpus, size.memory_mb))  # type: ignore[assignment]
    mounts = [{"path": each.path, "volume": volume} for each in read(source).mounts]
    order = shapes.Launch(
        config=changed(whole(source), {"guest": size, "mounts": mounts}),
        region=region or source.region,
        name=call.flags.get("--name", ""),
    )
    print(f"Cloning Machine {source.id} into region {order.region}")
    made = client.rest(shapes.MachineInfo, "POST", f"/apps/{app}/machines", order)
    print(f"  Machine {made.id} has been created...")
    if "--detach" not in call.flags:
        wait(client, app, made.id, "started", 300)
    print("Machine has been successfully cloned!")


def _destroy(call: Call) -> None:
    client = Client()
    force = "--force" in call.flags
    for name in call.words:
        machine = _get(client, call.app, name)
        if machine.state not in ("stopped", "suspended") and not force:
            raise FlyError(
                f"machine {name} currently {machine.state}, either stop first or use --force flag"
            )
        nonce = _lease(client, call.app, name)
        path = f"/apps/{call.app}/machines/{name}?kill={str(force).lower()}"
        client.rest(msgspec.Raw, "DELETE", path, nonce=nonce)
        print(f"{name} has been destroyed")


def _exec(call: Call) -> None:
    client = Client()
    if len(call.words) != 2:
        raise FlyError("a machine ID must be specified when not running interactively")
    name, command = call.words
    order = shapes.ExecOrder(cmd=command, timeout=int(call.flags.get("--timeout", "0")))
    try:
        path = f"/apps/{call.app}/machines/{_get(client, call.app, name).id}/exec"
        done = client.rest(shapes.ExecResult, "POST", path, order)
    except RefusedError as error:
        words = f"could not exec command on machine {name}: failed to exec on VM {name}: {error}"
        raise FlyError(words) from error
    if "--json" in call.flags:
        say(done)
        return
    if done.exit_code:
        print(f"Exit code: {done.exit_code}")
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)


def _duration(text: str) -> float:
    """Seconds of a duration such as `30s`."""
    units = {"s": 1, "m": 60, "h": 3600}
    return float(text[:-1]) * units[text[-1]] if text[-1] in units else float(text)


COMMANDS: dict[str, Callable[[Call], None]] = {
    "fly machine list": _list,
    "fly machine start": _start,
    "fly machine stop": _stop,
    "fly machine suspend": _suspend,
    "fly machine restart": _restart,
    "fly machine update": _update,
    "fly machine clone": _clone,
    "fly machine destroy": _destroy,
    "fly machine exec": _exec,
}
