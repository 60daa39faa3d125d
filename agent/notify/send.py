"""The process that sends: reads one order on stdin, has Apprise send it, answers on stdout.

A process of its own, without rights, secrets in its environment or a say in anything: Apprise and
what it imports are larger than the agent. Words of Apprise or of a server never leave it, because
they may have a secret in them.
"""

import json
import os
import resource
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from apprise import Apprise

MEMORY = 1 << 30


class Order(TypedDict):
    """What is asked: `says` to be sent to `urls`; without it, which hosts they need."""

    urls: list[str]
    title: str
    says: str


class Answer(TypedDict):
    """What came of one URL: `kind` is its scheme, `problem` empty where it was taken."""

    kind: str
    problem: str
    hosts: list[str]


def main() -> None:
    """Do one order."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers_to = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        # What a plugin prints could have an address in it.
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    order: Order = json.loads(sys.stdin.buffer.read())
    answers = [_one(url, order) for url in order["urls"]]
    os.write(answers_to, json.dumps(answers).encode())


def _one(url: str, order: Order) -> Answer:
    from apprise import Apprise, NotifyFormat

    kind = url.partition(":")[0]
    kind = kind if kind.isalnum() and len(kind) < 20 else "?"
    sender = Apprise()
    if not sender.add(url):
        return {"kind": kind, "problem": "Apprise does not know such an address", "hosts": []}
    if not order["says"]:
        return {"kind": kind, "problem": "", "hosts": _hosts(sender)}
    sent = sender.notify(title=order["title"], body=order["says"], body_format=NotifyFormat.TEXT)
    problem = "" if sent else "it was not taken: no answer, or a refusal"
    return {"kind": kind, "problem": problem, "hosts": []}


def _hosts(sender: "Apprise") -> list[str]:
    """The hosts that sending would look up: found by sending, with the look-up taken away."""
    asked: list[str] = []

    def look_up(host: object, *_: object, **__: object) -> Sequence[object]:
        asked.append(host.decode() if isinstance(host, bytes) else str(host))
        raise socket.gaierror("only asked for the name")

    there = socket.getaddrinfo
    socket.getaddrinfo = look_up  # type: ignore[assignment]  # for this one look
    try:
        with suppress(OSError):
            sender.notify(title="", body="?")
    finally:
        socket.getaddrinfo = there
    return sorted(set(asked))


if __name__ == "__main__":
    main()
