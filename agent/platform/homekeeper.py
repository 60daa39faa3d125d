"""What programs have put in the place of the home's links is taken to the volume again.

Before the machine stops, and before it is suspended: a suspended machine that is changed meanwhile
is started cold.
"""

import os
import sys

from agent.bus import Bus
from agent.events import Notice
from agent.init.children import Children, NotDone
from agent.platform.account import Account, credentials_of, environment_of
from agent.settings import Settings

PATIENCE = 5.0
"""Seconds that it may take."""


async def bring_back(settings: Settings, account: Account, children: Children, bus: Bus) -> None:
    """Have it done by a process of the account's own: home and volume are full of its links."""
    if os.geteuid() != 0 or not settings.home_links:
        return
    paths = [str(path) for path in settings.home_links]
    module = ["-m", "agent.platform.home", account.home, settings.volume, *paths]
    try:
        await children.run(
            [sys.executable, *module],
            env=environment_of(account.name),
            patience=PATIENCE,
            cwd="/",
            run_as=credentials_of(account.name),
        )
    except (OSError, KeyError, NotDone) as error:
        notice = f"what has replaced links of the home is not on the volume: {error}"
        bus.publish(Notice(part="home", notice=notice))
        return
