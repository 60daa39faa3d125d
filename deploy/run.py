"""`make run`: a machine behind the stand-in for the platform, with a key made for the purpose."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

from deploy.api import MachinesApi
from deploy.edge import Edge
from deploy.machine import Machine
from deploy.scrape import Scraper
from deploy.standin import StandIn, socket_path

FOLDER = Path(__file__).resolve().parent.parent / ".run"
HOST = os.environ.get("HOST", "127.0.0.1")
PORT = int(os.environ.get("PORT", "10022"))
MACHINE_PORT = 2222
HTTP_PORT = int(os.environ.get("HTTP_PORT", "9091"))

HINT = """\
A machine on this computer, as it lives on Fly.io: {kind},
behind a stand-in for the platform's edge. It sleeps when nothing happens; a connection wakes it.
Ctrl-C ends it. In another terminal:

  ssh -p {port} -i {key} -o UserKnownHostsFile={known_hosts} {user}@{host}

and there: swarm-agent status, swarm-agent why, swarm-agent awake --for 1h.
The status page: http://127.0.0.1:{http}/
To see it sleep and wake soon: SWARM_IDLE_TIMEOUT=1m SWARM_IDLE_WARNING=20s make run
"""


def main() -> None:
    """Run it until a signal."""
    FOLDER.mkdir(exist_ok=True)
    key = FOLDER / "id_ed25519"
    if not key.exists():
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "make-run", "-f", str(key)]
        subprocess.run(make, check=True)
    machine = Machine(FOLDER / "machine")
    print(
        HINT.format(
            kind="PID 1 of its own namespaces" if machine.namespaces else "an ordinary process",
            port=PORT,
            key=_short(key),
            known_hosts=_short(FOLDER / "known_hosts"),
            user=machine.user,
            host=HOST,
            http=HTTP_PORT,
        ),
        flush=True,
    )
    asyncio.run(_serve(machine, _environ(key)))


async def _serve(machine: Machine, environ: dict[str, str]) -> None:
    """Serve until a signal, and end the machine in order."""
    standin = StandIn(machine, environ, MACHINE_PORT, _tell)
    loop, signalled = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, signalled.set)
    try:
        async with asyncio.TaskGroup() as group:
            served = [
                group.create_task(Edge(standin.connect).serve(HOST, PORT)),
                group.create_task(MachinesApi(standin).serve(socket_path(FOLDER))),
                group.create_task(Scraper(standin, HTTP_PORT, _tell).run()),
            ]
            await standin.start("make run")
            await signalled.wait()
            for task in served:
                task.cancel()
    finally:
        await standin.close()


def _environ(key: Path) -> dict[str, str]:
    """What a user would set as secrets and in fly.toml; what the caller sets wins."""
    given = {name: text for name, text in os.environ.items() if name.startswith("SWARM_")}
    return {
        "SSH_AUTHORIZED_KEYS": key.with_suffix(".pub").read_text(),
        "SWARM_LISTEN": f"127.0.0.1:{MACHINE_PORT}",
        "SWARM_HTTP_LISTEN": f"127.0.0.1:{HTTP_PORT}",
        "SWARM_PROXY_NETWORKS": "127.0.0.0/8",
        "SWARM_FLY_API": str(socket_path(FOLDER)),
        "TERM": os.environ.get("TERM", "dumb"),
    } | given


def _tell(text: str) -> None:
    print(f"platform: {text}", flush=True)


def _short(path: Path) -> str:
    return os.path.relpath(path)


if __name__ == "__main__":
    main()
