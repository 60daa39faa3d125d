"""Running machines of the stand-in: the agent in its namespaces, its ports, its own API."""

import asyncio
import contextlib
import os
import random
import shlex
import socket
from collections.abc import Callable
from pathlib import Path

import aiohttp

from deploy.api import ApiError, MachinesApi
from deploy.local import shapes, store
from deploy.machine import LocalMachine
from deploy.standin import Identity, MachineState, StandIn

EXEC_LIMIT = 60
"""Seconds that a command may take by default."""

MOST_OUTPUT = 1 << 20
_CHECK_LIMIT = 2.0


class Running:
    """One machine on this computer. `changed` is called with each new state."""

    def __init__(
        self,
        folder: Path,
        record: store.MachineRecord,
        changed: Callable[[MachineState, int | None], None],
    ) -> None:
        self._record = record
        self._changed = changed
        self.log = folder / "logs" / f"{record.app}.log"
        self.log.parent.mkdir(exist_ok=True)
        self._output = self.log.open("ab", buffering=0)
        self._machine = _machine(folder, record)
        self.ports = _Ports.free()
        # Paths of Unix sockets must be short: not below the platform's folder.
        self._socket = Path(f"/tmp/swarm-api-{os.getpid()}-{record.id}.sock")
        guest = record.read.guest
        identity = Identity(
            record.app, record.id, guest.memory_mb, record.region, guest.cpu_kind, guest.cpus
        )
        self.standin = StandIn(
            self._machine, {}, self.ports.ssh, self._tell, identity=identity, output=self._output
        )
        self.api = MachinesApi(self.standin)
        self._tasks = [
            asyncio.create_task(self.api.serve(self._socket)),
            asyncio.create_task(self._follow()),
        ]

    def configure(self, record: store.MachineRecord) -> None:
        """Set the environment of the next start. Machines share a network: own ports."""
        self._record = record
        config = record.read
        self.standin.autostart = all(service.autostart for service in config.services)
        private = {"SWARM_PRIVATE_LISTEN": f"127.0.0.1:{self.ports.private}"}
        self.standin.environ = {
            **config.env,
            **record.secrets,
            **(private if "SWARM_PRIVATE_LISTEN" in config.env else {}),
            "SWARM_LISTEN": f"127.0.0.1:{self.ports.ssh}",
            "SWARM_HTTP_LISTEN": f"127.0.0.1:{self.ports.http}",
            "SWARM_VOLUME": "/mnt",
            "SWARM_USER": self._machine.user,
            "SWARM_PROXY_NETWORKS": "127.0.0.0/8",
            "SWARM_FLY_API": str(self._socket),
            "SWARM_LOG_FORMAT": "json",
            "SWARM_EGRESS": "open",
        }

    def port(self, inside: int) -> int:
        """The port on this computer that stands for a port of the machine."""
        config = self._record.read
        places = {
            _port_of(config.env.get("SWARM_LISTEN", "")): self.ports.ssh,
            _port_of(config.env.get("SWARM_HTTP_LISTEN", "")): self.ports.http,
            _port_of(config.env.get("SWARM_PRIVATE_LISTEN", "")): self.ports.private,
        }
        return places.get(inside, inside)

    async def listens(self, inside: int) -> bool:
        """Whether something listens on this port of the machine."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port(inside))
        except OSError:
            return False
        writer.close()
        return True

    async def execute(self, order: shapes.ExecOrder) -> shapes.ExecResult:
        """Run a command as root in the machine. Raises `ApiError`."""
        if self.standin.state is not MachineState.STARTED:
            raise ApiError(412, "failed_precondition: machine not running")
        try:
            words = shlex.split(order.cmd)
            inside = ["nsenter", "-t", str(self._machine.init), "-m", "-p", "-i", "-u", "--"]
        except (ValueError, ProcessLookupError) as error:
            raise ApiError(400, f"invalid command: {error}") from error
        process = await asyncio.create_subprocess_exec(
            *inside,
            *words,
            env={"PATH": os.environ["PATH"]},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(order.timeout or EXEC_LIMIT):
                out, err = await process.communicate(order.stdin.encode())
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
            raise ApiError(408, "deadline_exceeded: command timed out") from None
        status = process.returncode or 0
        return shapes.ExecResult(
            status, *(text[:MOST_OUTPUT].decode(errors="replace") for text in (out, err))
        )

    async def check(self, name: str, check: store.Check) -> shapes.CheckStatus:
        """Run a health check of the machine as the platform does."""
        status, output = "critical", "the machine does not run"
        if self.standin.state is MachineState.STARTED:
            url = f"http://127.0.0.1:{self.port(check.port)}{check.path}"
            limit = aiohttp.ClientTimeout(total=_CHECK_LIMIT)
            try:
                async with aiohttp.ClientSession(timeout=limit) as session, session.get(url) as got:
                    output = (await got.text())[:1000]
                    status = "passing" if got.status < 300 else "critical"
            except (aiohttp.ClientError, TimeoutError) as error:
                output = str(error)
        return shapes.CheckStatus(name, status, output, self._record.updated_at)

    async def close(self) -> None:
        """Stop the machine and everything that belongs to it."""
        await self.standin.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.unlink(missing_ok=True)
        self._output.close()

    async def _follow(self) -> None:
        """Report states; several may pass between two reports."""
        last = self.standin.state
        while True:
            await self.standin.wait_for(*(state for state in MachineState if state is not last))
            last = self.standin.state
            self._changed(last, self.standin.last_status)

    def _tell(self, text: str) -> None:
        self._output.write(f"platform: {text}\n".encode())


class _Ports:
    """Free ports of this computer for one machine."""

    def __init__(self, ssh: int, http: int, private: int) -> None:
        self.ssh, self.http, self.private = ssh, http, private

    @classmethod
    def free(cls) -> "_Ports":
        ports: list[int] = []
        with contextlib.ExitStack() as held:
            while len(ports) < 3:
                # Below the ephemeral ports: no outgoing connection takes one meanwhile.
                port = random.randrange(12_000, 20_000)
                with contextlib.suppress(OSError):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
                    ports.append(port)
        return cls(*ports)


def _machine(folder: Path, record: store.MachineRecord) -> LocalMachine:
    """The machine on this computer, with its volume in place. Raises `ApiError`."""
    machine = LocalMachine(folder / "machines" / record.id, login="node")
    if not machine.namespaces:
        raise ApiError(412, "failed_precondition: machines on this computer need root (namespaces)")
    machine.folder.mkdir(parents=True, exist_ok=True)
    mounts = record.read.mounts
    if mounts and not machine.volume.is_symlink():
        machine.volume.symlink_to(folder / "volumes" / mounts[0].volume)
    return machine


def _port_of(listen: str) -> int:
    port = listen.rpartition(":")[2]
    return int(port) if port.isdigit() else 0
