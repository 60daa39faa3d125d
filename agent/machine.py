"""The one object of this machine: everything that the parts are given and that status shows.

It is filled from top to bottom while the agent starts, each field once and by one step, and given
to each part that is made later. Reading a field before its step is an error (`AttributeError`).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent import words
from agent.bus import Bus
from agent.health import Health, Reexecutions
from agent.init.children import Children
from agent.log import Log
from agent.settings.current import Current

if TYPE_CHECKING:
    from agent.access.gate import Gate
    from agent.access.keyring import Keyring
    from agent.access.sessions import Sessions
    from agent.checkpoints.part import Checkpoints
    from agent.crew.keeper import Crew
    from agent.egress.wall import Wall
    from agent.idle.idle import Idle
    from agent.life.ending import Stop
    from agent.notify.notifier import Notifier
    from agent.observe.lag import Lag
    from agent.platform.account import Account
    from agent.platform.fly import FlyMachine
    from agent.platform.homekeeper import HomeKeeper
    from agent.services.supervisor import Supervisor
    from agent.state.memory import Memory


@dataclass(slots=True)
class Machine:
    """`began` is monotonic time; `command` what `run --` was given."""

    # From the first moment (life/main.py).
    current: Current
    environ: Mapping[str, str]
    command: Sequence[str]
    began: float
    past: Reexecutions
    bus: Bus
    log: Log
    children: Children
    health: Health
    stop: "Stop" = field(init=False)

    # Once SSH is open (life/start.py).
    account: "Account" = field(init=False)
    session_env: Mapping[str, str] = field(init=False)
    sessions: "Sessions" = field(init=False)
    keyring: "Keyring" = field(init=False)
    wall: "Wall | None" = field(init=False)
    gate: "Gate" = field(init=False)

    # As the parts start (life/parts.py).
    fly: "FlyMachine | None" = field(init=False)
    idle: "Idle" = field(init=False)
    supervisor: "Supervisor" = field(init=False)
    checkpoints: "Checkpoints" = field(init=False)
    memory: "Memory" = field(init=False)
    crew: "Crew" = field(init=False)
    notifier: "Notifier" = field(init=False)
    lag: "Lag" = field(init=False)
    home: "HomeKeeper" = field(init=False)

    def problems(self) -> Mapping[str, str]:
        """The present problems by part; without any, SSH is usable."""
        found = dict(self.health.problems)
        found.pop("keys", None)  # that is from when the keys were read; this is from now
        if no_key := self.keyring.problem():
            found["keys"] = no_key
        if not self.gate.listening:
            found["listener"] = "new connections are not accepted now"
        return found

    def notices(self) -> Mapping[str, tuple[float, str]]:
        """The latest degradation of each part, with its Unix time."""
        found = dict(self.health.notices)
        if self.log.lost:
            found["log"] = self.log.lost_at, f"lines lost, as nobody read them: {self.log.lost}"
        if waited := self.log.behind:
            said = f"nobody has read stdout for {words.duration(waited)}: lines wait"
            found["log"] = time.time(), said
        return found
