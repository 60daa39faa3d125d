"""`swarm up`."""

from pathlib import Path

import click

from deploy.swarm import plan, status
from deploy.swarm.cli import common
from deploy.swarm.fly import Fly
from deploy.swarm.flyerrors import FlyError
from deploy.swarm.place import Place, all_names
from deploy.swarm.show import Show
from deploy.swarm.up import Up
from deploy.swarm.wish import Wish


@click.command()
@click.argument("name", default="", callback=common.checked)
@common.all_
@click.option("--region", help="Its region; fly platform regions lists them.  [ams]")
@click.option("--size", help="A size of Fly.io.  [shared-cpu-2x]")
@click.option("--memory", "memory_gb", type=int, help="GB of memory.  [2]")
@click.option("--volume", "volume_gb", type=int, help="GB of the volume.  [10]")
@click.option("--image", help="A published image, instead of a build from the checkout.")
@click.option("--build", is_flag=True, help="Build from the checkout again.")
@click.option("--env-file", type=click.Path(path_type=Path), help="NAME=VALUE lines for sessions.")
@click.option("--key", type=click.Path(path_type=Path), help="A .pub file that may log in.")
@click.option("--ipv6-only", is_flag=True, help="No IPv4 address, which costs $2 a month.")
@click.option("--private", is_flag=True, help="No public address: ssh goes through fly proxy.")
@click.option("--snapshot", default="", help="Create the volume from this snapshot.")
@click.option("--local", is_flag=True, help="On this computer, with no account.")
@click.option("--rebuild", is_flag=True, help="Build from scratch, with the newest packages.")
@click.option("--org", default="", help="The organisation, if you have several.")
@common.dry
@common.quiet
@common.yes
def up(
    name: str,
    all_: bool,
    dry_run: bool,
    quiet: bool,
    yes: bool,
    local: bool,
    **given: object,
) -> None:
    """Create a machine, or bring it up to date. The next run completes an interrupted one."""
    wish = Wish(local=local, **given)  # type: ignore[arg-type]
    if all_:
        if name:
            raise click.UsageError("name one machine, or --all")
        common.run_all(all_names(), lambda each: _again(each, wish))
        return
    name = name or "swarm"
    where, show = Place(name), Show(quiet)
    local = local or where.state().local
    if dry_run and (fly := _usable(local, show)) is None:
        for line in plan.without_account(name, where.state(), wish):
            click.echo(line)
        return
    fly = common.flyctl(local, dry_run=dry_run, show=show)
    Up(where, fly, common.asker(yes or dry_run, show)).run(wish)
    if not (dry_run or quiet):
        click.echo(f"\n  ssh {name}\n  vscode://vscode-remote/ssh-remote+{name}/workspace")
        click.echo(f"\n  {status.about_size(where.state())}")


def _again(name: str, wish: Wish) -> str:
    where = Place(name)
    show = Show(quiet=True)
    fly = common.flyctl(where.state().local, show=show)
    Up(where, fly, lambda _: False).run(wish)
    return "is up to date"


def _usable(local: bool, show: Show) -> Fly | None:
    """flyctl for a dry run, if it is installed and logged in."""
    try:
        fly = common.flyctl(local, dry_run=True, show=show)
        fly.require_usable()
    except FlyError:
        return None
    return fly
