"""Everything that can be asked about the machine, in one place for those who show it."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from agent import words
from agent.access.gate import Gate
from agent.access.keyring import Keyring
from agent.access.sessions import Sessions
from agent.egress.wall import Wall
from agent.health import Health, Reexecutions
from agent.idle.assemble import Idle
from agent.init.children import Children
from agent.log import Log
from agent.observe.lag import Lag
from agent.platform.account import Account
from agent.platform.fly import FlyMachine
from agent.platform.memory import Space
from agent.services.supervisor import Supervisor
from agent.settings.current import Current
from agent.state.memory import Memory
from agent.stop import Stop


@dataclass(frozen=True, slots=True)
class Machine:
    """The agent's parts, as those see them who only look."""

    current: Current
    account: Account
    children: Children
    sessions: Sessions
    keyring: Keyring
    gate: Gate
    wall: Wall | None
    health: Health
    past: Reexecutions
    stop: Stop
    environ: Mapping[str, str]
    idle: Idle
    supervisor: Supervisor
    memory: Memory
    fly: FlyMachine | None
    lag: Lag
    log: Log

    def problems(self) -> Mapping[str, str]:
        """What is wrong now, per part; SSH can be used while there is nothing."""
        found = dict(self.health.problems)
        found.pop("keys", None)  # as it was when the keys were read
        if no_key := self.keyring.problem():
            found["keys"] = no_key
        if not self.gate.listening:
            found["listener"] = "no new connection is taken now"
        return found

    def notices(self) -> Mapping[str, tuple[float, str]]:
        """What is, or was, not as it could be: of each part the latest, with its Unix time."""
        found = dict(self.health.notices)
        if self.log.lost:
            found["log"] = self.log.lost_at, f"{self.log.lost} lines are lost: nobody read them"
        if waited := self.log.behind:
            said = f"nobody has read stdout for {words.duration(waited)}: lines wait"
            found["log"] = time.time(), said
        return found


NOTHING = Space(0, 0)


def volume_space(path: str) -> Space:
    """The volume's size, and what the login user can still write; nothing where it is missing."""
    try:
        status = os.statvfs(path)
    except OSError:
        return NOTHING
    return Space(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize)


def cpu_busy() -> float:
    """Seconds of CPU that all cores together have used since the kernel's boot (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(
            int, file.readline().split()[1:9]
        )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
