"""Commands about who may log in."""

from pathlib import Path

import click

from deploy.swarm import people, place
from deploy.swarm.cli import common
from deploy.swarm.show import Show
from deploy.swarm.wish import KEYS, person_of, read_key, secret_name


@click.group()
def keys() -> None:
    """Manage who may log in."""


@keys.command(name="add")
@click.argument("words", nargs=-1, metavar="NAME FILE")
@click.option("--person", default="", help="The owner of the key; default: you.")
@common.all_
@common.yes
def keys_add(words: tuple[str, ...], person: str, all_: bool, yes: bool) -> None:
    """Let the keys of a .pub file log in; sessions stay open. With --all, give only FILE."""
    if len(words) != (1 if all_ else 2):
        raise click.UsageError("a machine's NAME and a FILE, or --all and a FILE")
    if all_:
        text = read_key(Path(words[0]))
        common.run_all(
            place.all_names(),
            lambda each: people.give(*common.known(each, Show(quiet=True)), person, text),
        )
        return
    where, fly = common.known(words[0])
    secret, text = secret_name(person), read_key(Path(words[1]))
    if people.replaces(where, fly, secret, text):
        question = (
            f"{person_of(secret)} has a key, which this replaces (--person keeps it). Continue?"
        )
        if not yes and not click.confirm(question):
            raise click.Abort
    click.echo(people.give(where, fly, person, text))


@keys.command(name="remove")
@common.name
@click.argument("person")
def keys_remove(name: str, person: str) -> None:
    """Remove a person's keys, and end that person's sessions."""
    where, fly = common.known(name)
    click.echo(people.take(where, fly, person))


@keys.command(name="list")
@common.name
@common.as_json
def keys_list(name: str, as_json: bool) -> None:
    """List whose keys may log in."""
    where, fly = common.known(name)
    at = where.state().secrets_at
    found = [(person_of(each), at.get(each)) for each in fly.secrets(name) if each.startswith(KEYS)]
    if as_json:
        common.put_json([{"person": person, "given": given} for person, given in found])
        return
    for person, given in found:
        click.echo(f"{person}  {'given ' + common.when(given) if given else ''}".rstrip())
