"""What the commands share: the machine's name, questions, one machine or all of them, JSON."""

import sys
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

import click
import msgspec

from deploy.swarm import many, place
from deploy.swarm.fly import Fly, find_program, local_environ
from deploy.swarm.place import NAME, Place
from deploy.swarm.show import Show


def checked(_: click.Context, __: click.Parameter, value: str) -> str:
    """A machine's name."""
    if value and not NAME.fullmatch(value):
        raise click.BadParameter("small letters, digits and -, 3 to 40 of them, such as my-swarm")
    return value


name = click.argument("name", callback=checked)
name_or_all = click.argument("name", default="", callback=checked)
all_ = click.option("--all", "all_", is_flag=True, help="All machines that this laptop knows.")
dry = click.option("--dry-run", is_flag=True, help="Show what would be done, change nothing.")
yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
quiet = click.option("--quiet", "-q", is_flag=True, help="Print only failures.")
as_json = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")


def flyctl(local: bool, *, dry_run: bool = False, show: Show | None = None) -> Fly:
    """The user's flyctl, or the stand-in's. Raises `FlyError`."""
    environ = local_environ() if local else {}
    return Fly(find_program(local), show or Show(), dry_run, environ)


def known(machine: str, show: Show | None = None) -> tuple[Place, Fly]:
    """A machine that this laptop knows, and its flyctl. Raises `ClickException`."""
    where = Place(machine)
    if not where.exists:
        raise click.ClickException(
            f"this laptop does not know {machine}: swarm list, or swarm up {machine}"
        )
    return where, flyctl(where.state().local, show=show)


def asker(yes: bool, show: Show | None = None) -> Callable[[str], bool]:
    """A function that asks the user, or agrees to everything."""

    def ask(question: str) -> bool:
        if yes:
            return True
        if show is not None:
            with show.paused():
                return click.confirm(question)
        return click.confirm(question)

    return ask


def for_each(machine: str, all_of_them: bool, work: Callable[[str, Show], str]) -> None:
    """Do the work for one machine, or for all in parallel; exits with 1 if any failed."""
    if bool(machine) == all_of_them:
        raise click.UsageError("name one machine, or --all")
    if machine:
        said = work(machine, Show())
        if said:
            click.echo(said)
        return
    run_all(place.all_names(), lambda each: work(each, Show(quiet=True)))


def run_all(names: list[str], work: Callable[[str], str]) -> None:
    """Do the work for these machines: a line each, then a summary; exits with 1 if any failed."""
    summary(many.as_done(names, work))


def summary(results: Iterable[many.Result]) -> NoReturn:
    """Print each result, then how many succeeded and failed; exits with 1 if any failed."""
    done, failed = 0, 0
    for result in results:
        failed += bool(result.problem)
        done += not result.problem
        click.echo(f"{result.name}: {result.says or 'FAILED: ' + result.problem}")
    click.echo(f"{done} done, {failed} failed")
    sys.exit(bool(failed))


def put_json(value: object) -> None:
    """Print a value as JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def when(at: float) -> str:
    """A time as people say it."""
    return time.strftime("%a %d %b %H:%M", time.localtime(at))
