"""Runs the machine of one app on the stand-in: its edge, its API, and what `fly machine` asks.

A process of its own, which lives as long as the app has a machine. Its orders come over a Unix
socket: one word and its answer each connection.
"""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from deploy.api import MachinesApi
from deploy.edge import Edge
from deploy.local import store
from deploy.machine import Machine
from deploy.standin import Identity, StandIn, State

SSH_PORT = 10022
"""The edge's port, as in fly.toml."""

_PATIENCE = 60.0


class Answer(msgspec.Struct, frozen=True):
    """The machine's state, and the process id of its init while it has one."""

    state: str
    init: int = 0


class HostError(Exception):
    """The machine cannot be run on this computer."""


def machine_of(folder: Path, app: store.App) -> Machine:
    """The app's machine, with its volume in place."""
    assert app.machine is not None
    machine = Machine(folder / "machines" / app.machine.id, login="node")
    machine.folder.mkdir(parents=True, exist_ok=True)
    if not machine.volume.is_symlink():
        machine.volume.symlink_to(folder / "volumes" / app.machine.volume)
    return machine


def ask(folder: Path, app: str, order: str) -> Answer | None:
    """Have the host of an app do something; None where there is none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE)
        answer = b""
        try:
            connection.connect(str(_socket(folder, app)))
            connection.sendall(order.encode() + b"\n")
            while data := connection.recv(4096):
                answer += data
        except OSError:
            return None  # there is none, or it ends at this moment
    return msgspec.json.decode(answer, type=Answer) if answer else None


def launch(folder: Path, app: str) -> None:
    """Start the host of an app and its machine. Raises `HostError`."""
    with (folder / f"{app}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.local.host", str(folder), app],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    assert process.stdout is not None
    started = process.stdout.readline() == b"ready\n" and ask(folder, app, "start")
    if not started:
        said = (folder / f"{app}.log").read_text(errors="replace")[-2000:]
        raise HostError(f"the machine of {app} cannot be run here: {said}")


def _free_ports() -> tuple[int, int]:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        return one.getsockname()[1], two.getsockname()[1]


def _socket(folder: Path, app: str) -> Path:
    return folder / f"{app}.sock"


class _Host:
    def __init__(self, folder: Path, app: store.App) -> None:
        assert app.machine is not None
        self._folder = folder
        self._app = app
        self._log = (folder / f"{app.name}.log").open("ab", buffering=0)
        self._machine = machine_of(folder, app)
        self._ended = asyncio.Event()
        identity = Identity(app.name, app.machine.id, app.machine.memory_mb)
        port, http_port = _free_ports()
        api = folder / f"{app.name}.api"
        # The computer's network is shared: every machine has ports of its own.
        environ = (
            app.machine.environ
            | app.secrets
            | {
                "SWARM_LISTEN": f"127.0.0.1:{port}",
                "SWARM_HTTP_LISTEN": f"127.0.0.1:{http_port}",
                "SWARM_VOLUME": "/mnt",
                "SWARM_USER": self._machine.user,
                "SWARM_PROXY_NETWORKS": "127.0.0.0/8",
                "SWARM_FLY_API": str(api),
                "SWARM_LOG_FORMAT": "json",
                "SWARM_EGRESS": "open",
            }
        )
        self._api = api
        self.standin = StandIn(
            self._machine, environ, port, self._tell, identity=identity, output=self._log
        )

    async def run(self) -> None:
        """Serve until the order to end."""
        server = await asyncio.start_unix_server(
            self._arrived, str(_socket(self._folder, self._app.name))
        )
        edge = asyncio.create_task(Edge(self.standin.connect).serve(self._app.host, SSH_PORT))
        api = asyncio.create_task(MachinesApi(self.standin).serve(self._api))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        try:
            ended = asyncio.create_task(self._ended.wait())
            await asyncio.wait([edge, api, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            edge.cancel()
            api.cancel()
            await asyncio.gather(edge, api, return_exceptions=True)
            server.close()
            await self.standin.close()

    async def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order = (await reader.readline()).decode().strip()
        match order:
            case "start":
                if self.standin.state is State.SUSPENDED:
                    await self.standin.resume("fly machine start")
                elif self.standin.state is State.STOPPED:
                    await self.standin.start("fly machine start")
            case "stop":
                await self.standin.stop()
            case "suspend":
                await self.standin.suspend()
            case "end":
                await self.standin.stop()
                self._ended.set()
        try:
            init = self._machine.init if self._machine.running() else 0
        except ProcessLookupError:
            init = 0
        writer.write(msgspec.json.encode(Answer(self.standin.state.value, init)))
        writer.close()

    def _tell(self, text: str) -> None:
        self._log.write(f"platform: {text}\n".encode())


def main() -> None:
    """`python -m deploy.local.host FOLDER APP`."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    with store.opened(folder) as platform:
        app = platform.apps[name]
    asyncio.run(_serve(folder, app))


async def _serve(folder: Path, app: store.App) -> None:
    await _Host(folder, app).run()


if __name__ == "__main__":
    main()
