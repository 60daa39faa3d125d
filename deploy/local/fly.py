"""`python -m deploy.local.fly …`: a small flyctl, for the stand-in and for tests.

A client of the platform's API with the commands and flags of flyctl's published reference
(surface.json) that `swarm` needs. It behaves like flyctl in everything that `swarm` can notice:
questions, refusals, what goes to which stream, exit statuses, JSON, which commands do not wait. The
real one passes the same tests (tests/e2e/test_flyctl.py).
"""

import sys
from collections.abc import Callable

from deploy.local import (
    fly_apps,
    fly_deploy,
    fly_machines,
    fly_secrets,
    fly_streams,
    fly_volumes,
)
from deploy.local.client import FlyError
from deploy.local.surface import Call, UsageError, parse

_COMMANDS: dict[str, Callable[[Call], None]] = {
    **fly_apps.COMMANDS,
    **fly_volumes.COMMANDS,
    **fly_secrets.COMMANDS,
    **fly_machines.COMMANDS,
    **fly_streams.COMMANDS,
    **fly_deploy.COMMANDS,
}


def main() -> int:
    """Run a command line; returns the exit status."""
    try:
        call = parse(sys.argv[1:])
        _COMMANDS[call.command](call)
    except (UsageError, FlyError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
