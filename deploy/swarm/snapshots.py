"""Snapshots at Fly: make one and wait for it, list them, restore one in place of the volume."""

import time
from dataclasses import dataclass

from deploy.swarm import life, up
from deploy.swarm.fly import Fly
from deploy.swarm.place import Place
from deploy.swarm.records import ListedMachine, Snapshot, Volume
from deploy.swarm.wish import UpError

PATIENCE = 600.0
_POLL = 1.0
_GB = 1 << 30


@dataclass(frozen=True)
class Made:
    """A snapshot and its volume: both IDs are needed to find it again."""

    volume: str
    snapshot: str


def volume_of(fly: Fly, app: str) -> Volume:
    """The machine's volume. Raises `UpError`."""
    found = [each for each in fly.volumes(app) if each.name == up.VOLUME]
    attached = [each for each in found if each.attached_machine_id]
    for volume in attached or found:
        return volume
    raise UpError(f"{app} has no volume: swarm up {app}")


def make(where: Place, fly: Fly) -> Made:
    """Make a snapshot and wait until it exists. Raises `UpError`, `FlyError`."""
    volume = volume_of(fly, where.name)
    before = {each.id for each in fly.snapshots(where.name, volume.id)}
    words = ["volumes", "snapshots", "create", volume.id, "--app", where.name]
    fly.do(*words, why=f"starts a snapshot of {volume.id}")
    end = time.monotonic() + PATIENCE
    with fly.show.step("waiting for the snapshot") as step:
        while True:
            for each in fly.snapshots(where.name, volume.id):
                if each.id and each.id not in before and each.status == "created":
                    step.outcome = f"snapshot {each.id} of volume {volume.id}"
                    return Made(volume.id, each.id)
            if time.monotonic() > end:
                raise UpError(
                    f"the snapshot of {volume.id} is not done after {PATIENCE:.0f} s: "
                    f"swarm backup {where.name} --snapshot --list shows it later"
                )
            time.sleep(_POLL)


def listed(where: Place, fly: Fly) -> list[tuple[Volume, Snapshot]]:
    """Every snapshot of the machine's volumes."""
    return [
        (volume, snapshot)
        for volume in fly.volumes(where.name)
        for snapshot in fly.snapshots(where.name, volume.id)
        if snapshot.id
    ]


def restore(where: Place, fly: Fly, snapshot: str) -> str:
    """Restore a snapshot in place of the volume; returns the IDs of the volumes that are kept.

    A new machine is created on the new volume; nothing of the old one is destroyed before that.
    Raises `UpError`, `FlyError`, `LifeError`.
    """
    name, state = where.name, where.state()
    known = {each.id: each for _, each in listed(where, fly)}
    size = state.volume_gb
    if snapshot in known:
        size = max(size, -(-known[snapshot].volume_size // _GB))
    old = fly.machine(name)
    kept = [each for each in fly.volumes(name) if each.name == up.VOLUME]
    words = ["volumes", "create", up.VOLUME, "--app", name, "--region", state.region, "--yes"]
    words += ["--size", str(size), "--snapshot-id", snapshot]
    words += ["--vm-size", state.size, "--vm-memory", str(state.memory_gb * 1024)]
    words += ["--snapshot-retention", str(state.retention)]
    fly.do(*words, why=f"volume from snapshot {snapshot}")
    [made] = [each.id for each in fly.volumes(name) if each.id not in {one.id for one in kept}]
    state.volume_gb, state.deployed = size, ""
    where.keep(state)
    where.write_config(state)
    _machine_on(where, fly, made, old)
    return ", ".join(each.id for each in kept)


def _machine_on(where: Place, fly: Fly, volume: str, old: ListedMachine | None) -> None:
    """Replace the machine with one that has this volume."""
    name, again = where.name, up.Up(where, fly, lambda _: True)
    if old is not None and old.reachable:
        life.stop(fly, name)
        words = ["machine", "clone", old.id, "--app", name, "--attach-volume", volume, "--detach"]
        fly.do(*words, why=f"a new machine with volume {volume}")
    if old is not None:
        words = ["machine", "destroy", old.id, "--app", name, "--force"]
        fly.do(*words, why=f"machine {old.id} is destroyed; its volume is kept")
    if old is None or not old.reachable:
        # A deploy uses no volume whose host does not answer.
        again.redeploy(old.known.image if old else "")
    again.connect(where.state())
