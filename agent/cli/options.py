"""Options and value types that several commands share."""

import time
from collections.abc import Callable

import click

from agent.cli import client
from agent.durations import positive_duration


class Time(click.ParamType[float]):
    """A duration such as `2h`, as seconds."""

    name = "TIME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds; the command fails with an explanation if it is not a duration."""
        if isinstance(value, float):
            return value
        try:
            return positive_duration(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: expected {error}", param, ctx)


TIME = Time()

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

watch_option = click.option(
    "--watch",
    "seconds",
    is_flag=False,
    flag_value=2.0,
    type=float,
    metavar="SECONDS",
    help="Refresh every SECONDS seconds (default 2).",
)


def show(text: Callable[[], str], seconds: float | None) -> None:
    """Print a text; with `seconds`, refresh it until Ctrl-C."""
    if seconds is None:
        click.echo(text())
        return
    client.end_at_once_on_interrupt()
    while True:
        # Cursor home, the text with each line cleared to its end, then everything below cleared.
        click.echo("\x1b[H" + text().replace("\n", "\x1b[K\n") + "\x1b[K\n\x1b[J", nl=False)
        time.sleep(seconds)
