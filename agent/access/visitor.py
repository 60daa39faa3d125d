"""A client at the gate that has not logged in: a socket that waits for its turn, then a sshd.

While it waits it costs a descriptor and no process. MSG_PEEK shows whether the client has sent
something without consuming it: every byte is for sshd.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from agent.access.values import Client


@dataclass(slots=True, eq=False)
class Visitor:
    """One client; `connection` is the id of its connection, once it has a sshd."""

    socket: socket.socket
    client: Client
    door: str
    connection: str = ""


def wait(
    visitor: Visitor, on_word: Callable[[Visitor], object], on_gone: Callable[[Visitor], object]
) -> None:
    """Call one of these, once, when the client has sent its first bytes or has closed."""

    def readable() -> None:
        stop_waiting(visitor)
        try:
            said = visitor.socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            wait(visitor, on_word, on_gone)
        except OSError:
            on_gone(visitor)
        else:
            (on_word if said else on_gone)(visitor)

    visitor.socket.setblocking(False)
    asyncio.get_running_loop().add_reader(visitor.socket, readable)


def stop_waiting(visitor: Visitor) -> None:
    """Stop waiting: call nothing. May be called twice."""
    asyncio.get_running_loop().remove_reader(visitor.socket)
