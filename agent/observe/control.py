"""The control socket: HTTP on a Unix socket in the run folder, for the commands of the CLI.

Root may do everything; the login account may read, hold leases, send a test message, and make,
compare and restore checkpoints. The kernel says who asks (SO_PEERCRED).
"""

import os
import select
import socket
import struct

from agent import places
from agent.access.listener import BACKLOG
from agent.bus import Bus
from agent.http.messages import Answer, Request
from agent.http.routes import Routes
from agent.http.server import Manners, Server
from agent.machine import Machine
from agent.observe.answers import refusal
from agent.observe.checkpoints import OPEN_TO_ACCOUNT
from agent.observe.requests import FOR_THE_ACCOUNT, Requests

KEEPALIVE = 15.0
"""Seconds after which an idle connection is closed."""

LONGEST_ORDER = 16 << 10
"""The largest body of a request, in bytes."""

_CREDENTIALS = struct.Struct("=3i")  # struct ucred: pid, uid, gid (unix(7))


class Control:
    """Answers on agent.sock in the run folder until cancelled."""

    def __init__(self, machine: Machine, bus: Bus) -> None:
        self._machine = machine
        self._bus = bus

    async def serve(self) -> None:
        """Serve until cancelled. Raises `OSError` if the socket cannot be created."""
        routes = Routes(refusal)
        Requests(self._machine, peer_pid, hung_up).add_to(routes)

        async def answered(request: Request) -> Answer:
            return self._forbidden(request) or await routes.answer(request)

        manners = Manners(KEEPALIVE, LONGEST_ORDER, _peer_uid)
        await Server(answered, refusal, manners, self._bus).serve(self._bind())

    def _bind(self) -> socket.socket:
        path = f"{self._machine.current.value.run_dir}/{places.SOCKET}"
        if os.path.lexists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o117)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        os.chown(path, os.geteuid(), self._machine.account.gid)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        return listener

    def _forbidden(self, request: Request) -> Answer | None:
        uid = _credentials(request)[1]
        may = request.method == "GET" or request.path in (*FOR_THE_ACCOUNT, *OPEN_TO_ACCOUNT)
        # The agent's own account is root, unless an ordinary user runs the agent.
        if uid not in (0, os.geteuid()) and not (may and uid == self._machine.account.uid):
            return refusal(self._only_root(), status=403)
        return None

    def _only_root(self) -> str:
        app = self._machine.environ.get("FLY_APP_NAME", "")
        if app == "swarm-local":
            how = "make shell, on the computer that runs it"
        elif app:
            how = f"fly ssh console --app {app}; from a laptop: swarm sleep {app}, swarm ssh {app}"
        else:
            how = "from outside, such as docker exec -u root"
        return f"only root may do this: {how}"


def peer_pid(request: Request) -> int:
    """The process that asks, according to the kernel."""
    return _credentials(request)[0]


def hung_up(request: Request) -> bool:
    """Whether the client has closed its connection and waits for no answer."""
    if request.connection.fileno() < 0:
        return True
    kernel = select.poll()
    kernel.register(request.connection.fileno(), 0)  # a hangup is always reported
    return bool(kernel.poll(0))


def _peer_uid(connection: socket.socket) -> int:
    # Counted separately, so that connections of other users never use up root's.
    return _peer(connection)[1]


def _credentials(request: Request) -> tuple[int, int, int]:
    return _peer(request.connection)


def _peer(connection: socket.socket) -> tuple[int, int, int]:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid
