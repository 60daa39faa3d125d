"""The small flyctl without the start of Python: a process that has imported it forks for each call.

A test calls flyctl thousands of times. `python -m tests.warm SOCKET` serves until its standard
input ends; CLIENT is the script that calls it, in an interpreter that imports nothing.
"""

import atexit
import marshal
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NoReturn

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


@cache
def command() -> str:
    """The shell words that call it; the server belongs to this process, and ends with it."""
    folder = Path(tempfile.mkdtemp(prefix="swarm-warm-"))
    client, where = folder / "client.py", folder / "socket"
    client.write_text(CLIENT)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(where))
        listener.listen(64)
        words = [sys.executable, "-m", "tests.warm", str(listener.fileno())]
        server = subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])

    def end() -> None:
        server.communicate()
        for path in (client, where):
            path.unlink()
        folder.rmdir()

    atexit.register(end)
    return f"{sys.executable} -IS {client} {where}"


def main() -> None:
    """Serve on the listening socket whose descriptor is the argument."""
    from deploy.local import fly, surface

    surface.parse(["version"])  # reads the file of all commands
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(fileno=int(sys.argv[1]))
    while 0 not in select.select([0, listener.fileno()], [], [])[0]:
        connection = listener.accept()[0]
        head, streams, _, _ = socket.recv_fds(connection, 8, 3)
        if os.fork() == 0:
            listener.close()
            _call(connection, int.from_bytes(head), streams, fly.main)
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
        sys.argv = ["flyctl", *words]
        status = run()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([status]))
        os._exit(status)


if __name__ == "__main__":
    main()
