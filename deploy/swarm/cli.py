"""The commands that people type on the laptop. `swarm COMMAND --help` explains each."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import click

from agent import words
from agent.platform import prices
from agent.platform.flyapi import Size
from deploy.swarm import audit as audits
from deploy.swarm import backup as backups
from deploy.swarm import many, place, ssh, up
from deploy.swarm.audit import Finding, Level
from deploy.swarm.backup import BackupError
from deploy.swarm.fly import Fly, FlyError, find_program
from deploy.swarm.place import NAME, Place
from deploy.swarm.up import Up, UpError, Wish

SUSPEND_LIMIT = 2048
"""MB of memory up to which a machine can be suspended (fly.io/docs/reference/suspend-resume)."""

_PROBLEMS = (FlyError, UpError, BackupError)


class _Group(click.Group):
    """Turns what cannot be done into words and exit status 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except _PROBLEMS as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group)
@click.version_option(package_name="swarmcontainer")
def cli() -> None:
    """Machines of yours on Fly.io, reached by plain ssh."""


def _checked(_: click.Context, __: click.Parameter, value: str) -> str:
    if value and not NAME.fullmatch(value):
        raise click.BadParameter("small letters, digits and -, 3 to 40 of them, such as my-swarm")
    return value


_name = click.argument("name", callback=_checked)
_dry = click.option("--dry-run", is_flag=True, help="Show the flyctl commands, change nothing.")
_yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def _fly(local: bool, *, dry_run: bool = False) -> Fly:
    return Fly(find_program(local), lambda text: click.echo(f"  {text}"), dry_run)


def _known(name: str) -> tuple[Place, Fly]:
    where = Place(name)
    if not where.exists:
        raise click.ClickException(
            f"this laptop does not know {name}: swarm list, or swarm up {name}"
        )
    return where, _fly(where.state().local)


def _asker(yes: bool) -> Callable[[str], bool]:
    return lambda question: yes or click.confirm(question)


@cli.command(name="up")
@click.argument("name", default="swarm", callback=_checked)
@click.option("--region", help="Where it is; fly platform regions lists them.  [ams]")
@click.option("--size", help="A size of Fly.io.  [shared-cpu-2x]")
@click.option("--memory", "memory_gb", type=int, help="GB of memory.  [2]")
@click.option("--volume", "volume_gb", type=int, help="GB of the volume.  [10]")
@click.option("--env-file", type=click.Path(path_type=Path), help="Session secrets, NAME=VALUE.")
@click.option("--key", type=click.Path(path_type=Path), help="A .pub file that may log in.")
@click.option("--ipv6-only", is_flag=True, help="No IPv4 address, which costs $2 a month.")
@click.option("--snapshot", default="", help="Make the volume from this snapshot.")
@click.option("--local", is_flag=True, help="On this computer, with no account.")
@click.option("--rebuild", is_flag=True, help="Build anew, with the newest packages.")
@click.option("--org", default="", help="The organisation, where you have several.")
@_dry
@_yes
def up_command(name: str, dry_run: bool, yes: bool, rebuild: bool, **wish: object) -> None:
    """Bring a machine up, or bring it up to date; run it again whenever it was broken off."""
    where = Place(name)
    local = bool(wish.pop("local")) or where.state().local
    fly = _fly(local, dry_run=dry_run)
    asker = _asker(yes or dry_run)
    Up(where, fly, click.echo, asker).run(Wish(local=local, rebuild=rebuild, **wish))  # type: ignore[arg-type]
    if dry_run:
        return
    click.echo(f"\n  ssh {name}\n  vscode://vscode-remote/ssh-remote+{name}/workspace")
    click.echo(f"\n  {_about_size(where)}")


@cli.command(name="ssh", context_settings={"ignore_unknown_options": True})
@_name
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh_command(name: str, command: Sequence[str]) -> None:
    """Log in, or run a command there."""
    where, _ = _known(name)
    words_ = ssh.command(where, command)
    os.execvp(words_[0], words_)


@cli.command()
@_name
@click.argument("folder", default="/workspace")
def code(name: str, folder: str) -> None:
    """Open VS Code in the machine."""
    _known(name)
    try:
        done = subprocess.run(["code", "--remote", f"ssh-remote+{name}", folder], check=False)
    except FileNotFoundError:
        link = f"vscode://vscode-remote/ssh-remote+{name}{folder}"
        raise click.ClickException(f"no command `code` here; open {link}") from None
    sys.exit(done.returncode)


@cli.command()
@click.argument("name", default="", callback=_checked)
@click.option("--all", "all_", is_flag=True, help="All machines that this laptop knows.")
def status(name: str, all_: bool) -> None:
    """Show state, sessions and cost; a sleeping machine is not woken."""
    _for_each(name, all_, _status)


@cli.command(name="list")
def list_command() -> None:
    """List the machines with state, last use and cost."""
    names = place.all_names()
    if not names:
        click.echo("no machine yet: swarm up NAME")
        return
    rows = []
    for result in many.each(names, _row):
        problem = result.problem.partition("\n")[0]
        cells = [f"? {problem}", "", ""] if problem else result.says.split("\t")
        rows.append((result.name, *cells))
    click.echo(words.table(("name", "state", "last seen awake", "size"), rows))


@cli.command(context_settings={"ignore_unknown_options": True})
@_name
@click.option("--follow/--no-follow", "-f", default=False, help="Go on as new lines come.")
def logs(name: str, follow: bool) -> None:
    """Show what the agent and its services said."""
    _, fly = _known(name)
    tail = [] if follow else ["--no-tail"]
    sys.exit(subprocess.run([*fly.program, "logs", "--app", name, *tail], check=False).returncode)


@cli.command()
@click.argument("name", default="", callback=_checked)
@click.option("--all", "all_", is_flag=True, help="All machines that this laptop knows.")
def sleep(name: str, all_: bool) -> None:
    """Put a machine to sleep now, its sessions told."""
    _for_each(name, all_, _sleep)


@cli.command()
@click.argument("name", default="", callback=_checked)
@click.option("--all", "all_", is_flag=True, help="All machines that this laptop knows.")
def wake(name: str, all_: bool) -> None:
    """Start a machine that sleeps. (A login does so too.)"""
    _for_each(name, all_, _wake)


@cli.command()
@click.argument("name", default="", callback=_checked)
@click.option("--all", "all_", is_flag=True, help="All machines that this laptop knows.")
def usage(name: str, all_: bool) -> None:
    """Show time awake and about what it costs; of a sleeping machine, as it was last seen."""
    _for_each(name, all_, _usage)


@cli.command()
@_name
@click.argument("size")
@click.option("--memory", "memory_gb", type=int, help="GB of memory.")
@_yes
def resize(name: str, size: str, memory_gb: int | None, yes: bool) -> None:
    """Give the machine another size; it starts anew."""
    where, fly = _known(name)
    machine = fly.machine(name)
    if machine is None:
        raise click.ClickException(f"{name} has no machine: swarm up {name}")
    state = where.state()
    was_current = state.deployed == up.fingerprint(place.fly_config(name, state))
    state.size, state.memory_gb = size, memory_gb or state.memory_gb
    click.echo(_size_words(size, state.memory_gb))
    if not (yes or click.confirm(f"restart {name} as {size} with {state.memory_gb} GB?")):
        raise click.Abort
    memory = str(state.memory_gb * 1024)
    fly.do(
        "machine",
        "update",
        machine.id,
        "--app",
        name,
        "--vm-size",
        size,
        "--vm-memory",
        memory,
        "--yes",
    )
    state.deployed = up.fingerprint(place.fly_config(name, state)) if was_current else ""
    where.keep(state)
    place.write(where.config, place.fly_config(name, state))


@cli.group()
def keys() -> None:
    """Who may log in."""


@keys.command(name="add")
@_name
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--person", default="", help="Whose key it is; your own without it.")
@_yes
def keys_add(name: str, file: Path, person: str, yes: bool) -> None:
    """Let the keys of a .pub file log in."""
    where, fly = _known(name)
    secret, text = up.secret_name(person), up.read_key(file)
    replaces = secret in fly.secrets(name) and where.state().secrets.get(secret) != up.digest(text)
    question = (
        f"{up.person_of(secret)} has a key there, which this replaces (--person keeps it). Go on?"
    )
    if replaces and not yes and not click.confirm(question):
        raise click.Abort
    _set_secrets(where, fly, {secret: text})


@keys.command(name="remove")
@_name
@click.argument("person")
def keys_remove(name: str, person: str) -> None:
    """Let a person's keys log in no more; the machine starts anew, which ends open sessions."""
    where, fly = _known(name)
    secret = up.secret_name(person)
    there = fly.secrets(name)
    if secret not in there:
        raise click.ClickException(f"{person} has no key there: swarm keys list {name}")
    if [each for each in there if each.startswith(up.KEYS)] == [secret]:
        raise click.ClickException("it is the last key: add another first, or nobody gets in")
    _unset(where, fly, [secret])


@keys.command(name="list")
@_name
def keys_list(name: str) -> None:
    """List whose keys may log in."""
    where, fly = _known(name)
    at = where.state().secrets_at
    for secret in fly.secrets(name):
        if secret.startswith(up.KEYS):
            given = at.get(secret)
            click.echo(
                f"{up.person_of(secret)}  {'given ' + _when(given) if given else ''}".rstrip()
            )


@cli.group()
def secrets() -> None:
    """What sessions and services get (SWARM_SESSION_ENV names which)."""


@secrets.command(name="set")
@_name
@click.argument("file", type=click.Path(path_type=Path))
def secrets_set(name: str, file: Path) -> None:
    """Set the NAME=VALUE lines of a dotenv file."""
    where, fly = _known(name)
    _set_secrets(where, fly, up.read_env(file))


@secrets.command(name="unset")
@_name
@click.argument("names", nargs=-1, required=True)
def secrets_unset(name: str, names: Sequence[str]) -> None:
    """Take secrets away."""
    where, fly = _known(name)
    _unset(where, fly, names)


@secrets.command(name="list")
@_name
def secrets_list(name: str) -> None:
    """List the names; nobody can read values back."""
    _, fly = _known(name)
    for secret in fly.secrets(name):
        click.echo(secret)


@cli.command()
@_name
@click.option("--to", "target", default="backups", type=click.Path(path_type=Path))
@click.option("--snapshot", is_flag=True, help="A snapshot at Fly instead, in seconds.")
def backup(name: str, target: Path, snapshot: bool) -> None:
    """Write the volume's files to a verified archive on this laptop."""
    where, fly = _known(name)
    if snapshot:
        for volume in fly.volumes(name):
            fly.do("volumes", "snapshots", "create", volume.id, "--app", name)
        return
    path = backups.backup(where, target)
    click.echo(f"{path}: {words.size(path.stat().st_size)}, every file compared")


@cli.command()
@_name
@click.argument("archive", type=click.Path(exists=True, path_type=Path))
@_yes
def restore(name: str, archive: Path, yes: bool) -> None:
    """Put an archive's files back. (From a snapshot: swarm up NAME --snapshot ID.)"""
    where, _ = _known(name)
    question = f"{name} has files: those of the same name are replaced. Go on?"
    if not yes and backups.has_work(where) and not click.confirm(question):
        raise click.Abort
    click.echo(f"{backups.restore(where, archive)} files are as they were")


@cli.command()
@click.argument("direction", type=click.Choice(["push", "pull"]))
@_name
@click.argument("local", type=click.Path(path_type=Path))
@click.argument("remote", default="")
@click.option("--delete", is_flag=True, help="Delete what the source does not have; asks first.")
@_yes
def sync(direction: str, name: str, local: Path, remote: str, delete: bool, yes: bool) -> None:
    """Copy a folder to the machine or from it with rsync; nothing is deleted without asking."""
    where, _ = _known(name)
    there = f"{name}:{remote or backups.volume_of(where) + '/' + local.resolve().name}/"
    here = f"{local}/"
    ends = [here, there] if direction == "push" else [there, here]
    base = ["rsync", "-az", "--stats", "-e", f"ssh -F {where.ssh_config}"]
    if delete:
        listing = subprocess.run(
            [*base, "--delete", "--dry-run", "--itemize-changes", *ends],
            capture_output=True,
            text=True,
            check=False,
        )
        if listing.returncode != 0:
            raise click.ClickException(f"rsync: {listing.stderr.strip()[-400:]}")
        gone = [line for line in listing.stdout.splitlines() if line.startswith("*deleting")]
        if gone and not yes:
            click.echo("\n".join(gone[:50]))
            if not click.confirm(f"delete these {len(gone)}?"):
                raise click.Abort
        base.append("--delete")
    sys.exit(subprocess.run([*base, *ends], check=False).returncode)


@cli.command()
@_name
def audit(name: str) -> None:
    """Look at the machine's safety: pass, warn, fail, and what to do."""
    where, fly = _known(name)
    _show(audits.audit(where, fly))


@cli.command()
@_name
def doctor(name: str) -> None:
    """Follow the way of a connection and say where it ends."""
    where = Place(name)
    fly = _fly(where.state().local)
    _show([audits.newest_ssh(), *audits.doctor(where, fly)])


@cli.command()
@_name
@click.option("--no-backup", is_flag=True, help="Do not save the volume's files first.")
@click.option("--to", "target", default="backups", type=click.Path(path_type=Path))
@_dry
def down(name: str, no_backup: bool, target: Path, dry_run: bool) -> None:
    """Destroy the machine and its volume: a backup first, then its name is to be typed."""
    where = Place(name)
    fly = _fly(where.state().local, dry_run=dry_run)
    fly.require_usable()
    there = fly.has_app(name)
    if there and not no_backup and not dry_run and fly.volumes(name):
        if fly.machine(name) is None:
            raise click.ClickException(
                f"its volume cannot be saved without a machine: swarm up {name}, or --no-backup"
            )
        up.wake(fly, name)
        path = backups.backup(where, target)
        click.echo(f"saved: {path.resolve()}")
    if there:
        if not dry_run and click.prompt(f"type {name} to destroy it and its volume") != name:
            raise click.ClickException("that is not its name: nothing was destroyed")
        fly.do("apps", "destroy", name, "--yes")
    if not dry_run:
        where.forget()


def _for_each(name: str, all_: bool, work: Callable[[str], str]) -> None:
    if bool(name) == all_:
        raise click.UsageError("name one machine, or --all")
    if name:
        click.echo(work(name))
        return
    results = many.each(place.all_names(), work)
    for result in results:
        click.echo(f"{result.name}: {result.says or 'FAILED: ' + result.problem}")
    failed = [result for result in results if result.problem]
    click.echo(f"{len(results) - len(failed)} done, {len(failed)} failed")
    sys.exit(bool(failed))


def _status(name: str) -> str:
    where, fly = _known(name)
    machine = fly.machine(name)
    if machine is None:
        return f"{name}: no machine; swarm up {name}"
    lines = [f"{name} is {machine.state} in {machine.region}; {_about_size(where)}"]
    if machine.state == "started":
        lines.append(fly.inside(name, "/usr/local/bin/swarm-agent status").rstrip())
        _note_usage(where, fly)
    lines.append(_cost(where))
    return "\n".join(filter(None, lines))


def _row(name: str) -> str:
    where, fly = _known(name)
    machine = fly.machine(name)
    state = where.state()
    seen = _when(state.seen) if state.seen else "-"
    shown = "no machine" if machine is None else machine.state
    return "\t".join((shown, seen, f"{state.size}, {state.memory_gb} GB"))


def _sleep(name: str) -> str:
    where, fly = _known(name)
    machine = fly.machine(name)
    if machine is None or machine.state != "started":
        return f"{name} sleeps already"
    _note_usage(where, fly)
    return fly.inside(name, "/usr/local/bin/swarm-agent sleep --now").strip()


def _wake(name: str) -> str:
    _, fly = _known(name)
    up.wake(fly, name)
    return f"{name} is started"


def _usage(name: str) -> str:
    where, fly = _known(name)
    machine = fly.machine(name)
    if machine is not None and machine.state == "started":
        _note_usage(where, fly)
    state = where.state()
    if not state.usage:
        return f"{name} was not seen awake yet"
    return f"as of {_when(state.seen)}:\n{state.usage}"


def _note_usage(where: Place, fly: Fly) -> None:
    state = where.state()
    state.usage = fly.inside(where.name, "/usr/local/bin/swarm-agent usage").rstrip()
    state.seen = time.time()
    where.keep(state)


def _cost(where: Place) -> str:
    state = where.state()
    if not state.usage:
        return ""
    return f"cost so far, as of {_when(state.seen)}: {state.usage.splitlines()[-1]}"


def _about_size(where: Place) -> str:
    state = where.state()
    return _size_words(state.size, state.memory_gb)


def _size_words(size: str, memory_gb: int) -> str:
    memory = memory_gb * 1024
    kind, _, count = size.rpartition("-")
    how = "is suspended and goes on at once" if memory <= SUSPEND_LIMIT else "stops and starts"
    said = f"{size} with {memory_gb} GB: {how}"
    try:
        known = Size(
            "shared" if kind == "shared-cpu" else kind, int(count.rstrip("x") or 0), memory
        )
        hour = prices.load("").hour(known)
    except (prices.PriceError, ValueError):
        return said
    return f"{said}; about ${hour:.4f} an hour awake"


def _set_secrets(where: Place, fly: Fly, values: dict[str, str]) -> None:
    why = f"sets {', '.join(sorted(values))}; the machine starts anew"
    up.import_secrets(fly, where.name, values, stage=False, why=why)
    state = where.state()
    up.remember_secrets(state, values)
    where.keep(state)


def _unset(where: Place, fly: Fly, names: Sequence[str]) -> None:
    fly.do("secrets", "unset", *names, "--app", where.name)
    state = where.state()
    for each in names:
        state.secrets.pop(each, None)
        state.secrets_at.pop(each, None)
    where.keep(state)


def _show(findings: Iterable[Finding]) -> None:
    worst = Level.PASS
    for finding in findings:
        click.echo(f"{finding.level.value:4}  {finding.says}")
        if finding.todo:
            click.echo(f"      → {finding.todo}")
        if finding.level is Level.FAIL:
            worst = Level.FAIL
    sys.exit(worst is Level.FAIL)


def _when(at: float) -> str:
    return time.strftime("%a %d %b %H:%M", time.localtime(at))


if __name__ == "__main__":
    cli()
