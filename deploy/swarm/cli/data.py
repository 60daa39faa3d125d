"""Commands that back up, restore, and destroy."""

from pathlib import Path

import click

from agent import words
from deploy.swarm import backup as backups
from deploy.swarm import checkpoints, life, snapshots, vault
from deploy.swarm.cli import common
from deploy.swarm.fly import Fly
from deploy.swarm.place import Place
from deploy.swarm.show import Show
from deploy.swarm.vault import Vault


@click.command()
@common.name_or_all
@common.all_
@click.option("--to", "target", default="backups", type=click.Path(path_type=Path))
@click.option("--archive", is_flag=True, help="A .tar.gz, even if restic is installed here.")
@click.option("--snapshot", is_flag=True, help="A snapshot at Fly instead, in seconds.")
@click.option("--list", "listing", is_flag=True, help="With --snapshot: list the snapshots.")
def backup(
    name: str, all_: bool, target: Path, archive: bool, snapshot: bool, listing: bool
) -> None:
    """Save the volume's files on this laptop and compare each: with restic, or as an archive."""

    def work(each: str, show: Show) -> str:
        where, fly = common.known(each, show)
        if snapshot and listing:
            return _listed(where, fly)
        if snapshot:
            made = snapshots.make(where, fly)
            return (
                f"snapshot {made.snapshot} of volume {made.volume}: swarm restore {each} "
                f"--snapshot {made.snapshot}"
            )
        return _saved(where, target, archive=archive)

    common.for_each(name, all_, work)


def _saved(where: Place, target: Path, *, archive: bool = False) -> str:
    """Back up, and say where it is."""
    if archive or not vault.program():
        path = backups.backup(where, target)
        return f"{path.resolve()}: {words.size(path.stat().st_size)}, every file compared"
    kept = Vault(target)
    saved = kept.save(where)
    size = f"{words.size(saved.total_bytes_processed)}, {words.size(saved.data_added)} of it new"
    return (
        f"{saved.snapshot_id[:8]} in {kept.path.resolve()}: {size}, every file compared\n"
        f"  swarm restore {where.name} {saved.snapshot_id[:8]} --from {target}"
    )


def _listed(where: Place, fly: Fly) -> str:
    rows = [
        (snapshot.id, volume.id, snapshot.created_at[:16].replace("T", " "))
        for volume, snapshot in snapshots.listed(where, fly)
    ]
    return words.table(("snapshot", "volume", "made (UTC)"), rows) if rows else "no snapshot yet"


@click.command()
@common.name
@click.argument("archive", default="")
@click.option("--from", "source", default="backups", type=click.Path(path_type=Path))
@click.option("--of", "machine", default="", help="The machine that was backed up, if another.")
@click.option("--snapshot", default="", help="A snapshot's ID: replaces the whole volume.")
@click.option("--checkpoint", default="", metavar="ID", help="A checkpoint that was copied away.")
@common.yes
def restore(
    name: str, archive: str, source: Path, machine: str, snapshot: str, checkpoint: str, yes: bool
) -> None:
    """Restore files from an archive or a backup's ID (`latest`).

    Or restore a checkpoint, or replace the volume with a snapshot.
    """
    show = Show()
    where, fly = common.known(name, show)
    if checkpoint:
        try:
            click.echo(checkpoints.restore(where, checkpoint))
        except checkpoints.CheckpointError as error:
            raise click.ClickException(str(error)) from error
        return
    if snapshot:
        question = (
            f"{name} gets a new volume from {snapshot}, which ends its processes; its present "
            "volume is kept. Continue?"
        )
        if not yes and not click.confirm(question):
            raise click.Abort
        kept = snapshots.restore(where, fly, snapshot)
        click.echo(f"{name} has the volume of {snapshot}. Still kept, and billed: {kept}")
        click.echo(f"  to destroy it: fly volumes destroy VOLUME --app {name}")
        return
    store, is_file = Vault(source), Path(archive).is_file()
    if not is_file and not (vault.ID.fullmatch(archive) and store.path.is_dir()):
        raise click.UsageError(
            "an archive that exists, a backup's ID (with --from its folder), "
            "--checkpoint ID or --snapshot ID"
        )
    question = f"{name} has files: files of the same name are replaced. Continue?"
    if not yes and backups.has_work(where) and not click.confirm(question):
        raise click.Abort
    if is_file:
        count = backups.restore(where, Path(archive))
    else:
        count = store.restore(where, archive, machine)
    click.echo(f"{words.plural(count, 'file')} restored, every file compared")


@click.command()
@common.name
@click.option("--no-backup", is_flag=True, help="Do not save the volume's files first.")
@click.option("--to", "target", default="backups", type=click.Path(path_type=Path))
@common.dry
def down(name: str, no_backup: bool, target: Path, dry_run: bool) -> None:
    """Destroy the machine and its volume, after you type its name and after a backup."""
    show = Show()
    where = Place(name)
    fly = common.flyctl(where.state().local, dry_run=dry_run, show=show)
    fly.require_usable()
    if not fly.has_app(name):
        if not where.exists:
            raise click.ClickException(f"there is no app {name}: swarm list")
        if not dry_run:
            where.forget()
            click.echo(f"{name} did not exist any more; this laptop has forgotten it")
        return
    for line in _losses(where, fly):
        click.echo(line)
    if not dry_run and click.prompt(f"type {name} to destroy it and its volume") != name:
        raise click.ClickException("that is not its name: nothing was destroyed")
    if not no_backup and not dry_run and fly.volumes(name):
        machine = fly.machine(name)
        if machine is None or not machine.reachable:
            raise click.ClickException(
                f"its volume cannot be backed up without its machine: swarm up {name}, "
                "or --no-backup"
            )
        life.autostart(fly, name, on=True)
        life.wake(fly, name)
        click.echo(f"saved: {_saved(where, target)}")
        _copy_checkpoints_away(where)
    fly.do("apps", "destroy", name, "--yes", why=f"{name} is destroyed")
    if not dry_run:
        where.forget()
        click.echo(f"{name} is gone: machine, volume, snapshots, address, secrets")


def _copy_checkpoints_away(where: Place) -> None:
    away = checkpoints.report(where).away
    if not away or not click.confirm(f"wait until a last checkpoint is at {away}?", default=True):
        return
    try:
        checkpoints.copy_away(where)
    except checkpoints.CheckpointError as error:
        raise click.ClickException(f"{error}; nothing was destroyed") from error
    click.echo(f"copied: {away}")


def _losses(where: Place, fly: Fly) -> list[str]:
    """List what will be lost."""
    volumes = fly.volumes(where.name)
    lines = [f"volume {each.id}, {each.size_gb} GB in {each.region}" for each in volumes]
    for volume, snapshot in snapshots.listed(where, fly):
        made = snapshot.created_at[:16].replace("T", " ")
        lines.append(f"snapshot {snapshot.id} of {volume.id}, made {made} UTC")
    if lines:
        lines.insert(0, f"With {where.name}, these are destroyed:")
        lines.append("(a snapshot can still be used by its ID for a day)")
    return [lines[0], *(f"  {line}" for line in lines[1:])] if lines else []
