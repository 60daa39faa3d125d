"""A machine on the stand-in for the platform, driven from a test: asleep and awake, by real SSH."""

import asyncio
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from deploy.api import MachinesApi
from deploy.edge import Edge
from deploy.standin import MachineState, StandIn
from tests.claims import free_port
from tests.support import Box, Key, until

T = TypeVar("T")


def at(event: Mapping[str, Any]) -> float:
    """When an event happened, as Unix time."""
    return datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00")).timestamp()


IDLE, WARNING = 4.0, 2.0
SOON = {
    "SWARM_IDLE_TIMEOUT": f"{IDLE:g}s",
    "SWARM_IDLE_WARNING": f"{WARNING:g}s",
    "SWARM_BOOT_GRACE": "1s",
    "SWARM_WAKE_WINDOW": "3s",
    # The shell and ssh of a test's commands use much CPU in an interval of one second.
    "SWARM_IDLE_CPU": "30%",
    # Checkpoints would delay a sleep; tests/system/test_checkpoint_agent.py tests them.
    "SWARM_CHECKPOINTS": "off",
}
"""Settings with short times."""

_LONG = "1h"
"""An idle timeout longer than any test."""


class Cloud(Box):
    """A machine behind edge and platform, in an event loop of its own; `port` is the edge's."""

    def __init__(self, folder: Path, key: Key, api: type[MachinesApi] | None = MachinesApi) -> None:
        super().__init__(folder, key)
        self.machine_port = free_port()
        self.said_by_platform: list[str] = []
        self._api = api
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def up(
        self,
        environ: Mapping[str, str] | None = None,
        soon: Mapping[str, str] = SOON,
        command: Sequence[str] = (),
    ) -> "Cloud":
        """Bring platform and edge up, and boot."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.error_path.touch()
        # Unix sockets have short names; the machine sees the host's /tmp.
        socket = Path(f"/tmp/swarm-api-{self.machine_port}.sock")
        settings = {
            "SWARM_LISTEN": f"127.0.0.1:{self.machine_port}",
            "SWARM_PROXY_NETWORKS": "127.0.0.0/8",
            "SWARM_FLY_API": str(socket),
        }
        self._log = self.log_path.open("ab")
        self.standin = StandIn(
            self.machine,
            self.environ | settings | dict(soon) | dict(environ or {}),
            self.machine_port,
            self.said_by_platform.append,
            output=self._log,
            command=command,
        )
        self._thread.start()
        edge = Edge(self.standin.connect)
        self._tasks = [self._spawn(edge.serve("127.0.0.1", self.port))]
        if self._api is not None:
            self._tasks.append(self._spawn(self._api(self.standin).serve(socket)))
        self.do(self.standin.start("the test"))
        self.event("boot.listening")
        return self

    def up_patiently(self, environ: Mapping[str, str]) -> "Cloud":
        """Like `up`, but the machine sleeps only after `hurry`, however long a test prepares."""
        self._config = self.folder.with_suffix(".toml")
        self.be_patient()
        soon = {name: value for name, value in SOON.items() if name != "SWARM_IDLE_TIMEOUT"}
        self.up({"SWARM_CONFIG": str(self._config)} | dict(environ), soon)
        until(lambda: self.agent("why").returncode == 0, f"the control socket; {self.said()}")
        return self

    def be_patient(self) -> None:
        """Never sleep by itself, from now on or from the next boot on."""
        self._config.write_text(f'idle_timeout = "{_LONG}"\n')

    def hurry(self, idle: float = IDLE) -> float:
        """Sleep after so many seconds from now; returns the time of the change (Unix time)."""
        self._config.write_text(f'idle_timeout = "{idle:g}s"\n')
        return at(self.event("settings.changed", applied=["idle_timeout"]))

    def stays_awake(self, seconds: float = IDLE + WARNING + 2) -> None:
        """Check that no sleep is warned of for so long, although that would be enough to sleep."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert not self.events("sleep.warned"), self.said()
            time.sleep(0.1)

    def sleep_now(self) -> None:
        """Order an immediate sleep; the machine may be gone before it has answered."""
        until(lambda: self.agent("why").returncode == 0, f"the control socket; {self.said()}")
        self.agent("sleep", "--now")

    def do(self, work: Coroutine[Any, Any, T], timeout: float = 60.0) -> T:
        """Run a coroutine of the platform, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def becomes(self, state: MachineState, timeout: float = 60.0) -> None:
        """Wait until the platform says that the machine is in this state."""
        until(lambda: self.standin.state is state, f"{state}; the log says {self.said()}", timeout)

    def down(self) -> None:
        """End everything."""
        self.do(self.standin.close())
        for task in self._tasks:
            self._loop.call_soon_threadsafe(task.cancel)
        until(lambda: all(task.done() for task in self._tasks), "the end of edge and API")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._log.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        async def begin() -> "asyncio.Task[None]":
            return asyncio.create_task(work)

        return self.do(begin())
