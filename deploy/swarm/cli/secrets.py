"""Commands for secrets and settings."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import click

from deploy.swarm import life, people, place
from deploy.swarm import secrets as ways
from deploy.swarm.cli import common
from deploy.swarm.fly import Fly
from deploy.swarm.place import Place
from deploy.swarm.show import Show
from deploy.swarm.up import Up, remember_secrets
from deploy.swarm.wish import SESSION_ENV, check_settings, for_sessions, read_env


def _when(function: "click.decorators.FC") -> "click.decorators.FC":
    now = click.option("--now", is_flag=True, help="Restart the machine now, without asking.")
    later = click.option("--later", is_flag=True, help="Apply it at the next start.")
    return now(later(function))


@click.group()
def secrets() -> None:
    """Manage the values that sessions and services get."""


@secrets.command(name="set")
@common.name
@click.argument("file", type=click.Path(path_type=Path))
@_when
def secrets_set(name: str, file: Path, now: bool, later: bool) -> None:
    """Set the NAME=VALUE lines of a dotenv file; sessions get them."""
    show = Show()
    where, fly = common.known(name, show)
    state = where.state()
    environ = tomllib.loads(place.fly_config(name, state))["env"]
    values = read_env(file, environ)
    before = dict(state.env)
    for_sessions(state, values)
    if state.env != before:
        # The list of names is not secret, but as a secret it takes effect without a deploy.
        values = {**values, SESSION_ENV: state.env[SESSION_ENV]}
    ways.give(fly, name, values, f"secrets {', '.join(sorted(values))}")
    remember_secrets(state, values)
    where.keep(state)
    where.write_config(state)
    click.echo(_take(where, fly, now, later))


@secrets.command(name="unset")
@common.name
@click.argument("names", nargs=-1, required=True)
@_when
def secrets_unset(name: str, names: Sequence[str], now: bool, later: bool) -> None:
    """Remove secrets."""
    where, fly = common.known(name)
    people.unset(where, fly, list(names))
    click.echo(_take(where, fly, now, later))


@secrets.command(name="list")
@common.name
@common.as_json
def secrets_list(name: str, as_json: bool) -> None:
    """List the names; values cannot be read back."""
    where, fly = common.known(name)
    found = fly.secrets(name)
    if as_json:
        at = where.state().secrets_at
        common.put_json([{"name": each, "given": at.get(each)} for each in found])
        return
    for secret in found:
        click.echo(secret)


def _take(where: Place, fly: Fly, now: bool, later: bool) -> str:
    """Apply staged secrets: now, or when the machine starts."""
    machine = fly.machine(where.name)
    awake = machine is not None and machine.awake
    question = f"{where.name} is awake: restart it now, which ends its sessions?"
    if later or (awake and not now and not click.confirm(question)):
        return f"they take effect at the next deploy or restart: swarm restart {where.name}"
    return life.apply_secrets(fly, where.name)


@click.command()
@common.name
@click.argument("settings", nargs=-1)
@click.option("--unset", "gone", multiple=True, help="A setting to remove; may be repeated.")
@common.as_json
@common.yes
def config(
    name: str, settings: Sequence[str], gone: Sequence[str], as_json: bool, yes: bool
) -> None:
    """Show a machine's settings, or change some: SWARM_X=VALUE … (checked first)."""
    show = Show()
    where, fly = common.known(name, show)
    state = where.state()
    for each in settings:
        key, equals, value = each.partition("=")
        if not equals or not key.startswith("SWARM_"):
            raise click.UsageError(f"{each}: expected SWARM_NAME=VALUE")
        state.env[key] = value
    for key in gone:
        if state.env.pop(key, None) is None:
            raise click.UsageError(f"{key} is not set for {name}: swarm config {name}")
    environ = {
        key: str(value)
        for key, value in tomllib.loads(place.fly_config(name, state))["env"].items()
    }
    check_settings(environ)
    if not (settings or gone):
        if as_json:
            common.put_json(environ)
            return
        for key, value in sorted(environ.items()):
            click.echo(f"{key}={value}{'' if key not in state.env else '   (of this machine)'}")
        return
    machine = fly.machine(name)
    if machine is not None and machine.awake and not yes:
        click.confirm(f"{name} is awake: the change restarts it. Continue?", abort=True)
    where.keep(state)
    if machine is not None and machine.known.image:
        # Its present image: a new setting needs no build.
        Up(where, fly, common.asker(True, show)).redeploy(machine.known.image)
    click.echo("the settings are in effect")
