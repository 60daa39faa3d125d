"""The small flyctl and the stand-in for the platform without the start of Python: a process that
has imported one of them forks for each use.

The tests call flyctl thousands of times, and start the stand-in for many.
`python -m tests.warm PROGRAM SOCKET` serves until its standard input ends; CLIENT is the script
that calls flyctl, in an interpreter that imports nothing.
"""

import array
import atexit
import gc
import importlib
import marshal
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

from deploy.local import access, surface

CLIENT = """\
import _socket, array, marshal, posix, sys
server = _socket.socket(_socket.AF_UNIX)
server.connect(sys.argv[1])
call = marshal.dumps((posix.getcwd(), sys.argv[2:], posix.environ))
streams = array.array("i", [0, 1, 2])
server.sendmsg([len(call).to_bytes(8)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
server.sendall(call)
posix._exit((server.recv(1) or b"\\1")[0])
"""


FLYCTL, STAND_IN = "fly", "server"
"""The programs: modules of deploy/local with a `main`."""


@cache
def command() -> str:
    """The shell words that call flyctl."""
    where = _serve(FLYCTL)
    client = where.with_name("client.py")
    client.write_text(CLIENT)
    return f"{sys.executable} -IS {client} {where}"


def stand_in(folder: Path) -> access.Access:
    """Start the stand-in for a folder, as `access.ensure` does."""

    def start(folder: Path, output: int) -> Callable[[], bool]:
        call = marshal.dumps(("/", [str(folder)], dict(os.environb)))
        with socket.socket(socket.AF_UNIX) as server, open(os.devnull) as nothing:
            server.connect(str(_serve(STAND_IN)))
            streams = array.array("i", [nothing.fileno(), output, output])
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)]
            server.sendmsg([len(call).to_bytes(8)], rights)
            server.sendall(call)
        return lambda: True

    return access.ensure(folder, start)


@cache
def _serve(program: str) -> Path:
    """The socket of a process that has imported a program; it ends with this one."""
    folder = Path(tempfile.mkdtemp(prefix="swarm-warm-"))
    where = folder / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(where))
        listener.listen(64)
        words = [sys.executable, "-m", "tests.warm", program, str(listener.fileno())]
        server = subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])

    def end() -> None:
        server.communicate()
        shutil.rmtree(folder)

    atexit.register(end)
    return where


def main() -> None:
    """Serve a module of deploy/local on the listening socket whose descriptor is the argument."""
    program = importlib.import_module(f"deploy.local.{sys.argv[1]}")
    surface.parse(["version"])  # reads the file of all commands
    gc.freeze()  # memory that a child's collector does not visit stays shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(fileno=int(sys.argv[2]))
    while 0 not in select.select([0, listener.fileno()], [], [])[0]:
        connection = listener.accept()[0]
        head, streams, _, _ = socket.recv_fds(connection, 8, 3)
        if os.fork() == 0:
            listener.close()
            if sys.argv[1] == STAND_IN:
                os.setsid()
            _call(connection, int.from_bytes(head), streams, program.main)
        connection.close()
        for stream in streams:
            os.close(stream)


def _call(
    connection: socket.socket, size: int, streams: list[int], run: Callable[[], int]
) -> NoReturn:
    """Run as the process that the client stands for, until it exits."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with connection.makefile("rb") as given:
            folder, words, environ = marshal.loads(given.read(size))
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(folder)
        for name in list(os.environb):
            del os.environb[name]
        os.environb.update(environ)
        sys.argv = [sys.argv[1], *words]
        status = run()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        with suppress(OSError):  # nobody waits for the stand-in
            connection.sendall(bytes([status]))
        os._exit(status)


if __name__ == "__main__":
    main()
