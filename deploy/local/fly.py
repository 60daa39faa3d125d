"""`python -m deploy.local.fly …`: a small flyctl, for the stand-in and for tests.

A client of the platform's API. It takes the commands and flags of flyctl's published reference
(surface.json) that `swarm` needs and does what flyctl does wherever the two can be told apart from
outside: what is asked, refused and printed where, exit statuses, JSON, what does not wait. The
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
    """The exit status."""
    try:
        call = parse(sys.argv[1:])
        _COMMANDS[call.command](call)
    except (UsageError, FlyError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
