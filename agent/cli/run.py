"""`swarm-agent run`: be the container's init."""

import os

import click


@click.command()
@click.option("--dry-run", is_flag=True, help="Log who would be banned, but ban nobody.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(command: tuple[str, ...], dry_run: bool) -> None:
    """Run as the container's init and let its user in over SSH.

    With COMMAND (write -- before it), also run COMMAND in the foreground of the container: it
    gets the signals, and its exit status becomes the container's.
    """
    # Imports the whole agent, which help and completion do not need.
    from agent.life.main import run as boot

    environ = dict(os.environ) | ({"SWARM_BAN_DRY_RUN": "on"} if dry_run else {})
    raise SystemExit(boot(command, environ))
