"""The process that sends: reads one order on stdin, has Apprise send it, answers on stdout.

It is a separate process, without rights and without secrets in its environment: Apprise and its
imports are larger than the agent. It never passes on text from Apprise or from a server, because
that may contain a secret.
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
    """An order: send `says` to `urls`; without `says`, list the hosts that they need."""

    urls: list[str]
    title: str
    says: str


class Answer(TypedDict):
    """The result of one URL: `kind` is its scheme, `problem` is empty on success."""

    kind: str
    problem: str
    hosts: list[str]


def main() -> None:
    """Carry out one order."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers_to = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        # Output of a plugin could contain an address.
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
        return {"kind": kind, "problem": "Apprise does not know this kind of address", "hosts": []}
    if not order["says"]:
        return {"kind": kind, "problem": "", "hosts": _hosts(sender)}
    sent = sender.notify(title=order["title"], body=order["says"], body_format=NotifyFormat.TEXT)
    problem = "" if sent else "not delivered: no answer, or a refusal"
    return {"kind": kind, "problem": problem, "hosts": []}


def _hosts(sender: "Apprise") -> list[str]:
    """The hosts that sending would look up, found by sending with look-ups disabled."""
    asked: list[str] = []

    def look_up(host: object, *_: object, **__: object) -> Sequence[object]:
        asked.append(host.decode() if isinstance(host, bytes) else str(host))
        raise socket.gaierror("only the name is wanted")

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
