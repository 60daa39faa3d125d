"""The commands that people type on the laptop. `swarm COMMAND --help` explains each."""

from deploy.swarm.cli.main import cli

__all__ = ["cli"]

if __name__ == "__main__":
    cli()
