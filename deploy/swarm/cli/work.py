"""Commands to work in a machine: ssh, VS Code, the status page, logs, files."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from deploy.swarm import backup as backups
from deploy.swarm import logs as said
from deploy.swarm import ssh as sshs
from deploy.swarm import tunnel
from deploy.swarm.cli import common


@click.command(context_settings={"ignore_unknown_options": True})
@common.name
@click.option(
    "--tmux", is_flag=False, flag_value="main", help="Attach to a tmux session, or start it."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str, tmux: str | None, command: Sequence[str]) -> None:
    """Log in, or run a command in the machine."""
    where, _ = common.known(name)
    options: list[str] = []
    if tmux is not None:
        options = ["-t"]
        command = [f"exec tmux new-session -A -s {shlex.quote(tmux)}"]
    words = sshs.command(where, command, options)
    os.execvp(words[0], words)


@click.command()
@common.name
@click.argument("folder", default="/workspace")
def code(name: str, folder: str) -> None:
    """Open VS Code in the machine."""
    common.known(name)
    try:
        done = subprocess.run(["code", "--remote", f"ssh-remote+{name}", folder], check=False)
    except FileNotFoundError:
        link = f"vscode://vscode-remote/ssh-remote+{name}{folder}"
        raise click.ClickException(f"no command `code` here; open {link}") from None
    sys.exit(done.returncode)


@click.command(name="open")
@common.name
@click.option("--print", "only_print", is_flag=True, help="Only print the address.")
def open_(name: str, only_print: bool) -> None:
    """Open the machine's status page in the browser, through a tunnel, until Ctrl-C."""
    where, _ = common.known(name)
    with tunnel.to_page(where) as address:
        click.echo(f"{address} (Ctrl-C closes the tunnel)")
        if not only_print:
            click.launch(address)
        tunnel.hold()


@click.command()
@common.name
def proxy(name: str) -> None:
    """Connect standard input and output to a private machine's SSH port; ssh runs this itself."""
    _, fly = common.known(name)
    tunnel.relay(fly, name)


@click.command()
@common.name
@click.argument("service", default="")
@click.option("--follow", "-f", is_flag=True, help="Keep showing new lines.")
@click.option("-n", "most", type=int, default=0, help="Only the last N lines.")
@common.as_json
def logs(name: str, service: str, follow: bool, most: int, as_json: bool) -> None:
    """Show the log of the agent and its services, or of one service."""
    _, fly = common.known(name)
    words = ["logs", "--app", name, *([] if follow else ["--no-tail"])]
    with fly.lines_of(*words) as lines:
        found = iter(lines) if follow else iter(list(lines)[-most:])
        for line in said.chosen(found, service):
            click.echo(line.said if as_json else str(line))


@click.command()
@click.argument("direction", type=click.Choice(["push", "pull"]))
@common.name
@click.argument("local", type=click.Path(path_type=Path))
@click.argument("remote", default="")
@click.option("--delete", is_flag=True, help="Delete files that the source lacks; asks first.")
@common.yes
def sync(direction: str, name: str, local: Path, remote: str, delete: bool, yes: bool) -> None:
    """Copy a folder to the machine or from it with rsync; nothing is deleted without asking."""
    where, _ = common.known(name)
    there = f"{name}:{remote or backups.volume_of(where) + '/' + local.resolve().name}/"
    here = f"{local}/"
    ends = [here, there] if direction == "push" else [there, here]
    base = ["rsync", "-az", "--stats", "-e", shlex.join(["ssh", "-F", str(where.ssh_config)])]
    if delete:
        listing = subprocess.run(
            [*base, "--delete", "--dry-run", "--itemize-changes", *ends],
            capture_output=True,
            text=True,
            errors="replace",
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
