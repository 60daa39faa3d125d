"""`swarm apply`: make a team's machines match swarm.toml."""

from pathlib import Path

import click

from deploy.swarm import place, team
from deploy.swarm.cli import common
from deploy.swarm.place import Place
from deploy.swarm.show import Show


@click.command()
@click.option("--file", default=team.FILE, type=click.Path(path_type=Path), show_default=True)
@click.option("--local", is_flag=True, help="On this computer, with no account.")
@common.dry
@common.yes
def apply(file: Path, local: bool, dry_run: bool, yes: bool) -> None:
    """Make all machines match swarm.toml. Lists the changes first; destroys nothing."""
    members = team.read(file)
    fly = common.flyctl(local, show=Show(quiet=True))
    account = fly.require_usable()
    changes = [team.change(each, fly) for each in members]
    due = [each for each in changes if each.says]
    click.echo(f"fly.io as {account}")
    for each in changes:
        click.echo(f"{each.member.name}: {'; '.join(each.says) or 'matches the file'}")
    for name in team.unlisted(members, place.all_names()):
        click.echo(f"{name}: not in {file}, left alone (swarm down {name} destroys it)")
    if dry_run or not due:
        return
    if not yes:
        click.confirm(f"change these {len(due)}?", abort=True)
    by_name = {each.member.name: each for each in due}

    def work(name: str) -> str:
        state = Place(name).state()
        if local and not state.local:
            state.local = True
            Place(name).keep(state)
        return team.bring(by_name[name], common.flyctl(local, show=Show(quiet=True)))

    common.run_all(list(by_name), work)
