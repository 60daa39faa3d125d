"""`swarm-agent`: `run` goes straight to the boot, everything else through click.

Somebody waits while `run` starts; click and what it imports would be read from a slow disk.
"""

import os
import sys


def main() -> None:
    """Run the command line; ends the process."""
    words = sys.argv[1:]
    if words == ["run"] or words[:2] == ["run", "--"]:
        from agent.boot import run

        sys.exit(run(words[2:], os.environ))
    from agent.cli.main import cli

    cli(prog_name="swarm-agent")


if __name__ == "__main__":
    main()
