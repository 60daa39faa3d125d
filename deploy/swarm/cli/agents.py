"""`swarm agents` and `swarm attach`."""

import os
import time

import click

from deploy.swarm import agents as coding
from deploy.swarm import place
from deploy.swarm import ssh as sshs
from deploy.swarm.cli import common
from deploy.swarm.show import Show


@click.command()
@common.name_or_all
@common.all_
@common.as_json
def agents(name: str, all_: bool, as_json: bool) -> None:
    """Show what coding agents do; for a sleeping machine, as last seen."""
    if as_json:
        if bool(name) == all_:
            raise click.UsageError("name one machine, or --all")
        names = [name] if name else place.all_names()
        common.put_json({each: coding.look(*common.known(each)) for each in names})
        return

    def work(each: str, show: Show) -> str:
        return coding.text(coding.look(*common.known(each, show)), time.time())

    common.for_each(name, all_, work)


@click.command()
@common.name
@click.argument("agent", default="")
def attach(name: str, agent: str) -> None:
    """Attach to the tmux window of a coding agent: AGENT, or the one waiting longest."""
    where, fly = common.known(name)
    script = coding.attach_script(coding.look(where, fly), agent)
    words = sshs.command(where, [script], ["-t"])
    os.execvp(words[0], words)
