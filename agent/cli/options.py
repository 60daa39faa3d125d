"""Options and values that several commands have."""

import click

from agent.durations import positive_duration


class Time(click.ParamType[float]):
    """A duration such as `2h`, as seconds."""

    name = "TIME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds; ends the command in words where it is no duration."""
        if isinstance(value, float):
            return value
        try:
            return positive_duration(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: expected {error}", param, ctx)


TIME = Time()

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
