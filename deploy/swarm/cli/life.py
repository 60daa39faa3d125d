"""Commands that wake machines, put them to sleep, resize and move them."""

import time

import click

from deploy.swarm import life, place, status, up
from deploy.swarm import move as moves
from deploy.swarm.cli import common
from deploy.swarm.show import Show
from deploy.swarm.wish import require_buyable


@click.command()
@common.name_or_all
@common.all_
@click.option("--stay", is_flag=True, help="Only `swarm wake` wakes it; its processes end.")
def sleep(name: str, all_: bool, stay: bool) -> None:
    """Put a machine to sleep now; its sessions are warned."""

    def work(each: str, show: Show) -> str:
        where, fly = common.known(each, show)
        said = life.sleep(fly, each, lambda machine: status.note_usage(where, fly, machine))
        if stay:
            life.autostart(fly, each, on=False)
            state = where.state()
            state.parked = True
            where.keep(state)
            said += f"\n{each} is parked: only swarm wake {each} wakes it"
        return said

    common.for_each(name, all_, work)


@click.command()
@common.name_or_all
@common.all_
def wake(name: str, all_: bool) -> None:
    """Start a sleeping machine. (A login does so too, unless it is parked.)"""

    def work(each: str, show: Show) -> str:
        where, fly = common.known(each, show)
        life.autostart(fly, each, on=True)
        state = where.state()
        if state.parked:
            state.parked = False
            where.keep(state)
        life.wake(fly, each)
        return f"{each} is awake"

    common.for_each(name, all_, work)


@click.command()
@common.name_or_all
@common.all_
def restart(name: str, all_: bool) -> None:
    """Stop a machine's processes and start it again; open sessions end."""

    def work(each: str, show: Show) -> str:
        _, fly = common.known(each, show)
        life.restart(fly, each)
        return f"{each} is awake"

    common.for_each(name, all_, work)


@click.command()
@common.name_or_all
@common.all_
def stop(name: str, all_: bool) -> None:
    """Have the platform stop a machine, even if its agent hangs; its processes end."""

    def work(each: str, show: Show) -> str:
        _, fly = common.known(each, show)
        life.stop(fly, each)
        return f"{each} is asleep (stopped)"

    common.for_each(name, all_, work)


@click.command()
@common.name
@click.argument("size", default="")
@click.option("--memory", "memory_gb", type=int, help="GB of memory.")
@click.option("--volume", "volume_gb", type=int, help="GB of the volume; it only grows.")
@common.yes
def resize(name: str, size: str, memory_gb: int | None, volume_gb: int | None, yes: bool) -> None:
    """Give the machine another size, or the volume more space."""
    show = Show()
    where, fly = common.known(name, show)
    state = where.state()
    if volume_gb is not None:
        for volume in fly.volumes(name):
            if volume.name == up.VOLUME and volume_gb > volume.size_gb:
                up.extend(fly, name, volume, volume_gb)
        state.volume_gb = volume_gb
    if size or memory_gb:
        machine = life.require(fly, name)
        current = state.deployed == up.fingerprint(place.fly_config(name, state), state)
        state.size, state.memory_gb = size or state.size, memory_gb or state.memory_gb
        require_buyable(state.size, state.memory_gb)
        click.echo(status.about_size(state))
        words = "restart" if machine.awake else "start"
        if not (yes or click.confirm(f"{words} {name} as {state.size}, {state.memory_gb} GB?")):
            raise click.Abort
        order = ["machine", "update", machine.id, "--app", name, "--vm-size", state.size]
        order += ["--vm-memory", str(state.memory_gb * 1024), "--yes", "--skip-health-checks"]
        fly.do(*order, why=f"{name} becomes {state.size} with {state.memory_gb} GB")
        life.wake(fly, name)
        state.deployed = ""
        if current:
            state.deployed = up.fingerprint(place.fly_config(name, state), state)
    elif volume_gb is None:
        raise click.UsageError("a size, --memory or --volume")
    where.keep(state)
    where.write_config(state)


@click.command()
@common.name
@click.option("--region", default="", help="The new region; default: another host in its region.")
@common.yes
def move(name: str, region: str, yes: bool) -> None:
    """Move a machine and its volume to another region or host; nothing is lost on the way."""
    show = Show()
    where, fly = common.known(name, show)
    question = (
        f"{name} is stopped (its processes end), its volume copied, and a new machine started from "
        "the copy. The old ones are destroyed once a login to the new one works. Continue?"
    )
    if not (yes or where.state().move or click.confirm(question)):
        raise click.Abort
    began = time.monotonic()
    moves.run(where, fly, region)
    click.echo(f"{name} is in {where.state().region}, after {time.monotonic() - began:.0f} s")
