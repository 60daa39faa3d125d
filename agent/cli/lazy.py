"""The base of both command lines: a command's module is imported when the command is typed.

Every `Program` has `-h` everywhere, `--version`, `completion` and `man`, and writes no colour if
NO_COLOR is set.
"""

import os
import sys
from collections.abc import Mapping
from importlib import import_module

import click

Commands = Mapping[str, str]
"""Name of a command → where it is, as `MODULE:NAME`."""

SENTENCE = 1000
"""The longest first sentence of a help text; click cuts off the rest."""


class Group(click.Group):
    """A group of commands, in sections with titles; the help shows them in this order."""

    def __init__(self, name: str, about: str, sections: Mapping[str, Commands]) -> None:
        super().__init__(name, help=about)
        self._sections = {title: list(commands) for title, commands in sections.items()}
        self._where = {
            name: where for commands in sections.values() for name, where in commands.items()
        }

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's interface
        """All names, those in sections first."""
        return [*self._where, *(name for name in self.commands if name not in self._where)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported now if it is not yet."""
        if cmd_name not in self.commands and cmd_name in self._where:
            module, _, attribute = self._where[cmd_name].partition(":")
            command = getattr(import_module(module), attribute)
            if not isinstance(command, click.Command):
                raise TypeError(f"{self._where[cmd_name]} is not a command")
            self.commands[cmd_name] = command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The typed command; for an unknown one, the error suggests similar names."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if args[0] in self.list_commands(ctx) or args[0].startswith("-"):
                raise
            raise click.UsageError(_unknown(args[0], self.list_commands(ctx)), ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands section by section, each with its description as a whole sentence."""
        names = self.list_commands(ctx)
        others = [name for name in names if name not in self._where]
        for title, section in [*self._sections.items(), ("Commands", others)]:
            commands = [(name, self.get_command(ctx, name)) for name in section]
            rows = [
                (name, command.get_short_help_str(SENTENCE))
                for name, command in commands
                if command is not None and not command.hidden
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Program(Group):
    """The root of a command line."""

    def __init__(
        self, name: str, version: str, about: str, sections: Mapping[str, Commands]
    ) -> None:
        own = {"completion": "agent.cli.setup:completion", "man": "agent.cli.setup:man"}
        super().__init__(name, about, {**sections, "This command": own})
        self.version = version
        self.context_settings = {"help_option_names": ["-h", "--help"]}
        click.version_option(version, prog_name=name, message="%(prog)s %(version)s")(self)

    def invoke(self, ctx: click.Context) -> object:
        """Run the typed command; wrap errors to the terminal's width."""
        if os.environ.get("NO_COLOR"):
            ctx.color = False
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise click.UsageError(_fitted(error), error.ctx) from error
        except click.ClickException as error:
            raise click.ClickException(_fitted(error)) from error


def _fitted(error: click.ClickException) -> str:
    """The text that click prints after `Error: `."""
    from agent.cli.tables import width, wrapped  # costs more than the rest of this module

    columns = width(sys.stderr)
    head = "Error: "
    lines = [wrapped(line, most=columns) for line in (head + error.format_message()).splitlines()]
    return "\n".join(lines)[len(head) :]


def _unknown(typed: str, known: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(typed, known, n=3)
    meant = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"there is no command {typed!r}.{meant}"
