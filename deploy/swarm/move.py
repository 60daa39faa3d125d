"""`swarm move`: move a machine off its host, by a fork of its volume.

Nothing is destroyed before a login to the new machine has worked, with the same host key. Each step
is recorded, so an interrupted move resumes where it was.
"""

import time

from deploy.swarm import life, up
from deploy.swarm.fly import Fly
from deploy.swarm.place import Move, Place
from deploy.swarm.records import ListedMachine, Volume
from deploy.swarm.wish import UpError

PATIENCE = 600.0
"""Seconds that a fork may take to copy its content (large volumes are slow)."""


def run(where: Place, fly: Fly, region: str) -> None:
    """Move it. Raises `UpError`, `FlyError`, `LifeError`."""
    state = where.state()
    move = state.move
    if move is None:
        machine = life.require(fly, where.name)
        target = region or state.region
        if target not in fly.regions():
            raise UpError(f"there is no region {target}: fly platform regions lists them")
        mounts = machine.known.mounts
        if not mounts:
            raise UpError(f"machine {machine.id} has no volume: swarm up --region is enough")
        move = state.move = Move(machine.id, mounts[0].volume, target)
        where.keep(state)
    name = where.name
    if not move.new_machine:
        _stop_old(fly, name, move)
        new = _fork(fly, name, move)
        move.new_volume = new.id
        where.keep(state)
        # Until it is checked, logins must reach only the new machine.
        move.new_machine = _clone(fly, name, move)
        where.keep(state)
    _check(where, fly, move)
    _end_old(fly, name, move)
    state.region, state.move, state.deployed = move.region, None, ""
    where.keep(state)
    where.write_config(state)


def _find(fly: Fly, name: str, machine: str) -> ListedMachine | None:
    return next((each for each in fly.machines(name) if each.id == machine), None)


def _stop_old(fly: Fly, name: str, move: Move) -> None:
    old = _find(fly, name, move.machine)
    if old is None:
        raise UpError(f"machine {move.machine} is gone: swarm up {name}")
    life.require_reachable(name, old)
    # Anything written after the fork would be lost.
    if old.state not in ("stopped", "created"):
        words = ["machine", "stop", old.id, "--app", name, "--signal", "SIGTERM"]
        fly.do(*words, "--timeout", "30", "--wait-timeout", "60s", why=f"stops {old.id}")
    if not old.parked:
        words = ["machine", "update", old.id, "--app", name, "--autostart=false"]
        fly.do(*words, "--skip-start", "--yes", why=f"nothing wakes {old.id} any more")


def _fork(fly: Fly, name: str, move: Move) -> Volume:
    volumes = fly.volumes(name)
    free = [
        each
        for each in volumes
        if each.name == up.VOLUME and each.id != move.volume and each.attached_machine_id is None
    ]
    if move.new_volume:
        free = [each for each in free if each.id == move.new_volume]
    if not free:
        old = _find(fly, name, move.machine)
        guest = (old or ListedMachine("", "", "")).known.guest
        words = ["volumes", "fork", move.volume, "--app", name, "--region", move.region]
        words += ["--vm-size", guest.preset, "--vm-memory", str(guest.memory_mb)]
        fly.do(*words, why=f"copies volume {move.volume} to {move.region}")
        before = {each.id for each in volumes}
        free = [each for each in fly.volumes(name) if each.id not in before]
    return free[0]


def _clone(fly: Fly, name: str, move: Move) -> str:
    before = {each.id for each in fly.machines(name)}
    made = before - {move.machine}
    if not made:
        words = ["machine", "clone", move.machine, "--app", name, "--region", move.region]
        words += ["--attach-volume", move.new_volume, "--detach"]
        fly.do(*words, why=f"a new machine in {move.region}")
        made = {each.id for each in fly.machines(name)} - before
    new = made.pop()
    # The clone inherits the disabled autostart.
    words = ["machine", "update", new, "--app", name, "--autostart=true", "--yes"]
    fly.do(*words, "--skip-health-checks", why=f"connections wake {new}")
    return new


def _check(where: Place, fly: Fly, move: Move) -> None:
    """The new machine has the same host key, and ssh gets in. Raises `UpError`, `LifeError`."""
    state = where.state()
    end = time.monotonic() + up.PATIENCE
    while (new := _find(fly, where.name, move.new_machine)) is None or not new.awake:
        if time.monotonic() > end:
            raise UpError(f"the new machine {move.new_machine} does not start; the old is kept")
        if new is not None and new.state in ("stopped", "suspended"):
            fly.do("machine", "start", new.id, "--app", where.name, why=f"starts {new.id}")
        time.sleep(0.5)
    key = up.host_key(fly, where.name, new)
    if state.host_key and key != state.host_key:
        raise UpError(f"the new machine has another host key ({key}); the old one is kept")
    with fly.show.step("logs in to the new machine"):
        life.require_login(where, fly, up.PATIENCE)


def _end_old(fly: Fly, name: str, move: Move) -> None:
    if _find(fly, name, move.machine) is not None:
        words = ["machine", "destroy", move.machine, "--app", name, "--force"]
        fly.do(*words, why=f"machine {move.machine} is destroyed")
    end = time.monotonic() + PATIENCE
    while True:
        volumes = {each.id: each for each in fly.volumes(name)}
        new = volumes.get(move.new_volume)
        if new is not None and new.state == "created":
            break
        if time.monotonic() > end:
            raise UpError(f"volume {move.new_volume} is not complete yet: swarm move {name} later")
        time.sleep(2)
    if move.volume in volumes:
        words = ["volumes", "destroy", move.volume, "--app", name, "--yes"]
        fly.do(*words, why=f"volume {move.volume} is destroyed; its snapshots stay a while")
