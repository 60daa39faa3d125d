"""`swarm-agent run`: be the container's init."""

import os

import click


@click.command()
@click.option("--dry-run", is_flag=True, help="Say who would be banned and ban nobody.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(command: tuple[str, ...], dry_run: bool) -> None:
    """Be the container's init and let its user in over SSH.

    With COMMAND (write -- before it), also run that in the foreground of the container: signals
    reach it, and its exit status becomes the container's.
    """
    # The whole agent: help and completion must not read it.
    from agent.life.main import run as boot

    environ = dict(os.environ) | ({"SWARM_BAN_DRY_RUN": "on"} if dry_run else {})
    raise SystemExit(boot(command, environ))
