"""The command line `swarm`: each command is imported when it is typed."""

import click

import agent
from agent.cli.lazy import Program

_HERE = "deploy.swarm.cli"


class Swarm(Program):
    """Turns expected errors into a message and exit status 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was typed."""
        try:
            return super().invoke(ctx)
        except click.ClickException:
            raise
        except Exception as error:
            if not _expected(error):
                raise
            raise click.ClickException(str(error)) from error


def _expected(error: Exception) -> bool:
    """Whether it is one of our errors, with a message for the user."""
    from deploy.swarm.agents import AttachError
    from deploy.swarm.backup import BackupError
    from deploy.swarm.flyerrors import FlyError
    from deploy.swarm.life import LifeError
    from deploy.swarm.secrets import SecretError
    from deploy.swarm.team import TeamError
    from deploy.swarm.wish import UpError

    ours = (AttachError, BackupError, FlyError, LifeError, SecretError, TeamError, UpError)
    return isinstance(error, ours)


cli = Swarm(
    "swarm",
    agent.__version__,
    "Your machines on Fly.io, reached over plain ssh.",
    {
        "Machines": {
            "up": f"{_HERE}.up:up",
            "list": f"{_HERE}.look:list_",
            "status": f"{_HERE}.look:status",
            "usage": f"{_HERE}.look:usage",
            "down": f"{_HERE}.data:down",
        },
        "Work in a machine": {
            "ssh": f"{_HERE}.work:ssh",
            "code": f"{_HERE}.work:code",
            "open": f"{_HERE}.work:open_",
            "logs": f"{_HERE}.work:logs",
            "sync": f"{_HERE}.work:sync",
        },
        "Coding agents": {
            "agents": f"{_HERE}.agents:agents",
            "attach": f"{_HERE}.agents:attach",
        },
        "Asleep and awake": {
            "sleep": f"{_HERE}.life:sleep",
            "wake": f"{_HERE}.life:wake",
            "restart": f"{_HERE}.life:restart",
            "stop": f"{_HERE}.life:stop",
            "resize": f"{_HERE}.life:resize",
            "move": f"{_HERE}.life:move",
        },
        "People, secrets, settings": {
            "keys": f"{_HERE}.keys:keys",
            "secrets": f"{_HERE}.secrets:secrets",
            "config": f"{_HERE}.secrets:config",
        },
        "Copies": {
            "backup": f"{_HERE}.data:backup",
            "restore": f"{_HERE}.data:restore",
        },
        "When something is wrong": {
            "doctor": f"{_HERE}.look:doctor",
            "audit": f"{_HERE}.look:audit",
        },
        "Teams": {"apply": f"{_HERE}.team:apply"},
        "For ssh itself": {"proxy": f"{_HERE}.work:proxy"},
    },
)
