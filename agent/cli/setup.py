"""`completion` and `man`: shell completion and the manual page, generated from the help texts."""

import os
import shutil
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from agent.cli.lazy import Program

SHELLS = ("bash", "zsh", "fish")
_BASH_COMPLETION = "/usr/share/bash-completion/bash_completion"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.option("--print", "only_print", is_flag=True, help="Print the script, install nothing.")
@click.pass_context
def completion(ctx: click.Context, shell: str | None, only_print: bool) -> None:
    """Install completion for your shell, and the man page."""
    shell = shell or os.path.basename(os.environ.get("SHELL", ""))
    if shell not in SHELLS:
        raise click.UsageError(f"name your shell: {', '.join(SHELLS)}")
    program = _program(ctx)
    script = completion_script(program, shell)
    if only_print:
        click.echo(script, nl=False)
        return
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    for path in _install(program.name or "", shell, script, data):
        click.echo(f"wrote {path}")
    page = data / "man/man1" / f"{program.name}.1"
    _write(page, man_page(program))
    click.echo(f"wrote {page}")
    click.echo(f"start a new {shell}: the Tab key then completes {program.name}")


@click.command()
@click.option("--print", "only_print", is_flag=True, help="Print the page's source.")
@click.pass_context
def man(ctx: click.Context, only_print: bool) -> None:
    """Show the manual page: every command with its options."""
    page = man_page(_program(ctx))
    if only_print or shutil.which("man") is None:
        click.echo(page, nl=False)
        return
    import subprocess

    subprocess.run(["man", "-l", "-"], input=page.encode(), check=False)


def completion_script(program: Program, shell: str) -> str:
    """The script with which a shell completes this program."""
    kind = get_completion_class(shell)
    if kind is None:
        raise LookupError(f"click completes nothing in {shell}")
    name = program.name or ""
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    made = kind(program, {}, name, variable)
    return made.source_template % made.source_vars() + "\n"


def man_page(program: Program) -> str:
    """The manual page, in man(7) format."""
    name = program.name or ""
    lines = [f'.TH {name.upper()} 1 "" "{name} {program.version}"', ".SH NAME"]
    lines += [_text(f"{name} - {(program.help or '').rstrip('.')}"), ".SH SYNOPSIS"]
    lines += [f".B {_text(name)}", r"[\-h] [\-\-version] COMMAND [ARGUMENTS]", ".SH COMMANDS"]
    lines += _commands(program, name)
    return "\n".join(lines) + "\n"


def _commands(group: click.Group, path: str) -> list[str]:
    lines: list[str] = []
    for name in group.list_commands(click.Context(group, info_name=path)):
        ctx = click.Context(group, info_name=path)
        command = group.get_command(ctx, name)
        if command is None or command.hidden:
            continue
        if isinstance(command, click.Group):
            lines += _commands(command, f"{path} {name}")
            continue
        inner = click.Context(command, info_name=name, parent=ctx)
        usage = " ".join(command.collect_usage_pieces(inner))
        lines += [f'.SS "{_text(f"{path} {name} {usage}".strip())}"']
        lines += [_text(part) + "\n.PP" for part in _paragraphs(command.help or "")]
        for parameter in command.params:
            record = parameter.get_help_record(inner)
            if record is not None:
                lines += [".TP", rf"\fB{_text(record[0])}\fR", _text(record[1])]
    return lines


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n")]


def _text(text: str) -> str:
    """Text, escaped for man(7): a line that begins with a dot or a quote would be a request."""
    plain = text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    return rf"\&{plain}" if plain[:1] in (".", "'") else plain


def _install(name: str, shell: str, script: str, data: Path) -> list[Path]:
    """Write the script to where the shell looks for it; returns the written files."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    match shell:
        case "fish":
            path = config / "fish/completions" / f"{name}.fish"
            _write(path, script)
            return [path]
        case "zsh":
            path = data / "zsh/site-functions" / f"_{name}"
            _write(path, script)
            start = Path(os.environ.get("ZDOTDIR") or Path.home()) / ".zshrc"
            line = f'fpath=("{path.parent}" $fpath); autoload -Uz compinit && compinit'
            return [path, *_add_line(start, line)]
    path = data / "bash-completion/completions" / name
    _write(path, script)
    if os.path.exists(_BASH_COMPLETION):
        return [path]  # bash-completion reads it at the first Tab
    return [path, *_add_line(Path.home() / ".bashrc", f'. "{path}"')]


def _add_line(path: Path, line: str) -> list[Path]:
    """Add a line to a shell's start-up file if it does not have it yet."""
    text = path.read_text() if path.exists() else ""
    if line in text.splitlines():
        return []
    _write(path, text + ("" if text.endswith("\n") or not text else "\n") + line + "\n")
    return [path]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _program(ctx: click.Context) -> Program:
    root = ctx.find_root().command
    if not isinstance(root, Program):
        raise TypeError(f"{root} is not the root of a program")
    return root
