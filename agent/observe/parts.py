"""The parts that remember, show and follow: state, metrics, HTTP, control socket, settings file.

This module and all it imports are read after the first client was served, in a thread.
"""

import asyncio
from typing import TYPE_CHECKING

from agent.access.gate import clock
from agent.access.homekeys import HomeKeys
from agent.access.keys import SUFFIX
from agent.events import Notice
from agent.idle.assemble import Idle
from agent.observe.control import Control
from agent.observe.http import Http
from agent.observe.lag import Lag
from agent.observe.machine import Machine
from agent.observe.metrics import Metrics
from agent.parts import Spine, keep_running
from agent.platform import volume
from agent.platform.fly import FlyMachine
from agent.services.supervisor import Supervisor
from agent.settings.follow import config_folder, follow, reload
from agent.state.banlist import Clocks
from agent.state.database import Change
from agent.state.memory import Memory

if TYPE_CHECKING:
    from agent.handover import Handover


class ObserveParts:
    """Makes them once, and runs each until cancelled, whatever the others do."""

    def __init__(
        self, spine: Spine, idle: Idle, supervisor: Supervisor, held: "Handover | None"
    ) -> None:
        settings = spine.current.value
        self._spine = spine
        self._memory = Memory(
            self._safe_volume(), spine.gate.jail, spine.sessions, spine.began, spine.bus, held
        )
        self._machine = Machine(
            current=spine.current,
            account=spine.account,
            children=spine.children,
            sessions=spine.sessions,
            keyring=spine.keyring,
            gate=spine.gate,
            wall=spine.wall,
            health=spine.health,
            past=spine.past,
            stop=spine.stop,
            environ=spine.environ,
            idle=idle,
            supervisor=supervisor,
            memory=self._memory,
            fly=FlyMachine.here(spine.environ, settings.fly_api),
            lag=Lag(),
            log=spine.log,
        )
        self._metrics = Metrics(self._machine)
        spine.bus.subscribe(self._metrics.hear, early=True)
        self._idle = idle
        self._home_keys = HomeKeys(spine.keyring, spine.account, spine.children, spine.bus)

    def hold(self) -> "tuple[Change, ...]":
        """What the memory could not write, for the agent that this process becomes."""
        return self._memory.hold()

    async def run(self) -> None:
        """Run all of them until cancelled."""
        parts = {
            "state": self._remember,
            "control socket": Control(self._machine, self._spine.bus).serve,
            "http": self._serve_http,
            "settings": self._follow_settings,
            "service files": self._follow_services,
            "keys": self._follow_keys,
            "keys in the home": self._home_keys.run,
            "lag": self._machine.lag.run,
        }
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take_up_totals())
            for name, part in parts.items():
                group.create_task(keep_running(name, part, self._spine.bus))

    async def _remember(self) -> None:
        await self._memory.run(Clocks(clock()))

    async def _take_up_totals(self) -> None:
        """What earlier lives had is known only when the database was read."""
        totals = await asyncio.shield(self._memory.totals)
        self._metrics.resume(totals, self._spine.began)
        self._idle.budget.counted = lambda: self._memory.usage.this_month

    async def _serve_http(self) -> None:
        endpoint = self._spine.current.value.http_listen
        if endpoint is not None:
            await Http(endpoint, self._machine, self._metrics, self._spine.bus).serve()

    async def _follow_settings(self) -> None:
        spine = self._spine

        async def changed() -> None:
            reload(spine.current, spine.environ, spine.bus)

        await follow(dict([config_folder(spine.environ)]), changed)

    async def _follow_services(self) -> None:
        spine = self._spine
        folders = dict([config_folder(spine.environ)])
        folders[spine.current.value.services_dir] = lambda name: name.endswith(".toml")
        await follow(folders, self._machine.supervisor.follow)

    async def _follow_keys(self) -> None:
        async def changed() -> None:
            self._spine.keyring.load()

        def is_wanted(name: str) -> bool:
            # Mounted secrets are links by way of ..data, which is what is replaced.
            return name.endswith(SUFFIX) or name == "..data"

        await follow({self._spine.current.value.keys_dir: is_wanted}, changed)

    def _safe_volume(self) -> str | None:
        """The volume, where SQLite can open files by name: nobody may put others in their place."""
        path = self._spine.current.value.volume
        reason = "others may replace folders in it: chown root, and chmod 1777 if they must write"
        try:
            if volume.is_safe_by_name(path):
                return path
        except OSError as error:
            reason = str(error)
        notice = f"bans, sessions and time awake are kept for this life only: {path}: {reason}"
        self._spine.bus.publish(Notice(part="state", notice=notice))
        return None
