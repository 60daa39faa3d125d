"""One connection, from the accepted socket to the end of its sshd.

sshd gets the socket as stdin and stdout. We keep a duplicate to read the kernel's counters, and
read the messages of this one sshd. So the client that logs in, fails or probes is known from the
process.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from agent import safe
from agent.access import sshd, tcpinfo, utmp
from agent.access.authlog import AuthEvent, Step, judge, parse
from agent.access.keyring import Keyring
from agent.access.room import Room
from agent.access.sessions import Session, Sessions
from agent.access.values import Client, Verdict
from agent.bus import Bus
from agent.events import (
    ConnectionClosed,
    ConnectionUnused,
    SessionClosed,
    SessionOpened,
    ShellOpened,
    SshdSaid,
)
from agent.init.children import Child, Children, ExitStatus
from agent.init.descriptor import NONE, Descriptor
from agent.settings import Settings

_PACKET = 4096
"""PIPE_BUF: the largest packet of a pipe. sshd's messages have at most 1 KiB."""


@dataclass(frozen=True, slots=True)
class Access:
    """The dependencies of every connection.

    `session_env` is added to every session's environment.
    """

    settings: Settings
    session_env: Mapping[str, str]
    keyring: Keyring
    children: Children
    room: Room
    sessions: Sessions
    bus: Bus


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a finished connection."""

    client: Client
    verdict: Verdict
    seconds: float
    last_line: str


@dataclass(slots=True, eq=False, kw_only=True)
class ConnectionRecord:
    """A connection and its sshd.

    `socket` is our duplicate of the client's connection, `errors` our end of the pipe to which its
    sshd writes messages, `config` the descriptor from which sshd reads its configuration.
    """

    id: str
    client: Client
    process: Child
    socket: socket.socket
    errors: Descriptor
    config: Descriptor
    started: float
    steps: set[Step] = field(default_factory=set)
    user: str = ""
    last_line: str = ""
    was_cut: bool = False
    session: Session | None = None
    """The session, once somebody has logged in."""


_TRIES = frozenset({Step.FAILED, Step.INVALID_USER, Step.REFUSED_USER, Step.TOO_MANY})
"""Steps of a client that tries to log in."""


def connect(connection: socket.socket, client: Client, access: Access) -> ConnectionRecord:
    """Start a sshd for an accepted connection. Raises `OSError`."""
    name = os.urandom(4).hex()
    config = Descriptor(_write_config(access, client, name))
    try:
        errors, process = _start_sshd(access, connection, config)
    except OSError:
        os.close(config)
        raise
    return ConnectionRecord(
        id=name,
        client=client,
        process=process,
        socket=connection,
        errors=errors,
        config=config,
        started=time.monotonic(),
    )


class Connection:
    """Follows one sshd.

    `on_try` and `on_login` are called at most once; `on_end` once, after sshd was reaped.
    """

    def __init__(
        self,
        record: ConnectionRecord,
        access: Access,
        on_try: "OnStep",
        on_login: "OnStep",
        on_end: "OnEnd",
    ) -> None:
        self._record = record
        self._access = access
        self._on_try = on_try
        self._on_login = on_login
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(record.errors, self._read)
        record.process.exited.add_done_callback(self._ended)

    @property
    def id(self) -> str:
        """Its id in the log; its session has the same id."""
        return self._record.id

    @property
    def client(self) -> Client:
        """The client at the other end."""
        return self._record.client

    @property
    def session(self) -> Session | None:
        """Its session, once somebody has logged in."""
        return self._record.session

    @property
    def has_banner(self) -> bool:
        """The first bytes of its sshd have reached the client."""
        try:
            return tcpinfo.traffic(self._record.socket).sent >= len("SSH-")
        except OSError:
            return True  # it is being closed

    @property
    def pid(self) -> int:
        """The process id of its sshd."""
        return self._record.process.pid

    @property
    def has_tried(self) -> bool:
        """The client tried to log in."""
        return bool(self._record.steps & _TRIES)

    @property
    def was_cut(self) -> bool:
        """`cut` was called."""
        return self._record.was_cut

    def catch_up(self) -> None:
        """Process all messages that sshd has written so far."""
        while self._read():
            pass

    def cut(self) -> None:
        """Close it now: no further byte of the client is read, and no attempt succeeds.

        It must not have a session: call `catch_up` and check that first.
        """
        self._record.was_cut = True
        with suppress(OSError):  # the client was faster
            self._record.socket.shutdown(socket.SHUT_RDWR)
        self._record.process.send(signal.SIGKILL)

    def _read(self) -> bool:
        """Read one message of sshd; False when none is left for now."""
        try:
            data = os.read(self._record.errors, _PACKET)
        except BlockingIOError:
            return False
        self._forget_config()  # sshd has read it before its first message
        if not data:
            self._loop.remove_reader(self._record.errors)
            return False
        self._heard(as_line(data))
        return True

    def _forget_config(self) -> None:
        if self._record.config >= 0:
            os.close(self._record.config)
            self._record.config = NONE

    def _heard(self, line: str) -> None:
        event = parse(line)
        self._access.bus.publish(SshdSaid(session=self.id, line=line))
        if event.step is Step.BROKEN_ACCOUNT and event.user != self._access.keyring.account:
            event = replace(event, step=Step.REFUSED_USER)
        tried = self.has_tried
        self._record.steps.add(event.step)
        if self.has_tried and not tried:
            self._on_try(self)
        if event.step is Step.BROKEN_ACCOUNT or not (
            event.step is Step.NOISE or Step.BROKEN_ACCOUNT in self._record.steps
        ):
            # Noise, and messages after sshd has refused the account, explain nothing.
            self._record.last_line = line
        if event.step is Step.ACCEPTED:
            self._accepted(event)
        elif event.terminal and self.session is not None:
            self._terminal_opened(self.session, event)
        elif event.user:
            self._record.user = event.user

    def _accepted(self, event: AuthEvent) -> None:
        if self.session is not None:
            return
        key = self._access.keyring.keys.name_of(event.fingerprint)
        session = self._record.session = Session(
            id=self.id,
            client=self.client,
            user=event.user,
            key=key,
            fingerprint=event.fingerprint,
            process=self._record.process,
            connection=self._record.socket,
        )
        self._access.sessions.add(session)
        self._access.bus.publish(
            SessionOpened(
                session=self.id,
                client=str(self.client),
                user=event.user,
                key=key,
                fingerprint=event.fingerprint,
                pid=self._record.process.pid,
            )
        )
        self._on_login(self)

    def _terminal_opened(self, session: Session, event: AuthEvent) -> None:
        session.terminals.add(event.terminal)
        if os.geteuid() == 0:
            utmp.opened(session, event.terminal)
        if event.step is Step.SHELL:
            self._access.bus.publish(ShellOpened(session=session.id, terminal=event.terminal))

    def _ended(self, exited: "asyncio.Future[ExitStatus]") -> None:
        self.catch_up()
        self._loop.remove_reader(self._record.errors)
        os.close(self._record.errors)
        self._forget_config()
        if exited.result().signal is not None:
            # Its child for the login account would keep serving the client, unnoticed.
            with suppress(OSError):
                self._record.socket.shutdown(socket.SHUT_RDWR)
        verdict = judge(frozenset(self._record.steps), exited.result().code)
        if self.session is not None:
            self._session_closed(self.session, exited.result())
        else:
            self._access.bus.publish(self._closed(verdict))
        # The connection ends for the client only when the last duplicate is closed.
        self._record.socket.close()
        seconds = time.monotonic() - self._record.started
        self._on_end(self, Outcome(self.client, verdict, seconds, self._record.last_line))

    def _closed(self, verdict: Verdict) -> ConnectionClosed | ConnectionUnused:
        client, seconds = str(self.client), time.monotonic() - self._record.started
        if verdict is Verdict.NOTHING and not self.was_cut:
            return ConnectionUnused(session=self.id, client=client, seconds=seconds)
        return ConnectionClosed(
            session=self.id,
            client=client,
            verdict="cut" if self.was_cut else verdict.value,
            user=self._record.user,
            reason=self._record.last_line,
            seconds=seconds,
        )

    def _session_closed(self, session: Session, status: ExitStatus) -> None:
        if os.geteuid() == 0:
            utmp.closed(session)
        self._access.sessions.remove(session)
        traffic = session.traffic()
        self._access.bus.publish(
            SessionClosed(
                session=session.id,
                client=str(session.client),
                user=session.user,
                key=session.key,
                fingerprint=session.fingerprint,
                seconds=time.monotonic() - session.started,
                bytes_in=traffic.received,
                bytes_out=traffic.sent,
                reason=session.ended_by or self._reason(status),
            )
        )

    def _reason(self, status: ExitStatus) -> str:
        if Step.LEFT in self._record.steps:
            return "logged out"
        if Step.TIMEOUT in self._record.steps:
            return "client not responding"
        if status.signal is not None:
            return f"sshd ended by signal {status.signal}"
        return "connection lost"


OnStep = Callable[[Connection], None]
OnEnd = Callable[[Connection, Outcome], None]


def _write_config(access: Access, client: Client, session: str) -> int:
    ours = {"SWARM_CLIENT": client.host.address, "SWARM_SESSION": session}
    return sshd.connection_config(access.settings, {**access.session_env, **ours})


def _start_sshd(access: Access, connection: socket.socket, config: int) -> tuple[Descriptor, Child]:
    # Each write is a packet (pipe(2), O_DIRECT). sshd writes a message at once, so a user name with
    # line breaks in it does not look like several messages.
    reading, writing = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    # O_NONBLOCK belongs to the open file, which sshd shares: make it blocking again.
    connection.setblocking(True)
    try:
        child = access.room.for_a_login(
            lambda: sshd.serve(
                access.settings, access.children, connection.fileno(), writing, config
            )
        )
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    os.set_blocking(reading, False)
    return Descriptor(reading), child


def as_line(message: bytes) -> str:
    """A message of sshd as one line; control characters from the client are made visible."""
    return safe.decoded(message.removesuffix(b"\n").removesuffix(b"\r"))
