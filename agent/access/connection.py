"""One connection, from the accepted socket to the end of its sshd.

The socket is given to sshd as stdin and stdout; we keep a duplicate to ask the kernel about it,
and read what this one sshd says. So who logs in, fails or probes is known from the process.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent import safe
from agent.access import sshd, utmp
from agent.access.authlog import AuthEvent, Step, Verdict, judge, parse
from agent.access.client import Client
from agent.access.keyring import Keyring
from agent.access.sessions import Session, Sessions
from agent.events import (
    Bus,
    ConnectionClosed,
    ConnectionUnused,
    SessionClosed,
    SessionOpened,
    ShellOpened,
    SshdSaid,
)
from agent.init.children import Child, Children, ExitStatus
from agent.settings import Settings

if TYPE_CHECKING:
    from agent.handover import HeldConnection, HeldLogin

_PACKET = 4096
"""PIPE_BUF: the most that one packet of a pipe has. sshd's messages have at most 1 KiB."""


@dataclass(frozen=True, slots=True)
class Access:
    """What every connection needs: the keys' names, the processes, the open sessions, the bus.

    `session_env` is what every session's environment gets.
    """

    settings: Settings
    session_env: Mapping[str, str]
    keyring: Keyring
    children: Children
    sessions: Sessions
    bus: Bus


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished connection was."""

    client: Client
    verdict: Verdict
    user: str


class Connection:
    """Runs one sshd. `on_login` is called at most once, `on_end` once, when it was reaped.

    With `held` it runs already, since before this process re-executed. Raises `OSError`.
    """

    def __init__(
        self,
        connection: socket.socket,
        client: Client,
        access: Access,
        on_login: Callable[["Connection"], None],
        on_end: Callable[["Connection", Outcome], None],
        held: "HeldConnection | None" = None,
    ) -> None:
        self.id = os.urandom(4).hex()
        self.client = client
        self.session: Session | None = None
        self.was_cut = False
        self._socket = connection
        self._access = access
        self._on_login = on_login
        self._on_end = on_end
        self._started = time.monotonic()
        self._steps: set[Step] = set()
        self._user = ""
        self._last_line = ""
        self._loop = asyncio.get_running_loop()
        if held is None:
            self._config = self._write_config()
            try:
                self._errors, self._process = self._start()
            except OSError:
                self._forget_config()
                raise
        else:
            self._config, self._errors = held.config, held.errors
            self._process = access.children.adopted(held.pid)
            self._remember(held)
        self._loop.add_reader(self._errors, self._read)
        self._process.exited.add_done_callback(self._ended)

    def cut(self) -> bool:
        """End it now: no byte of the client is read any more, no attempt succeeds.

        False, and nothing is done, where it turns out to have logged in a moment ago.
        """
        while self._read():
            pass
        if self.session is not None:
            return False
        self.was_cut = True
        with suppress(OSError):  # the client was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.send(signal.SIGKILL)
        return True

    @property
    def running(self) -> bool:
        """Its sshd has not ended."""
        return self._process.running

    def hold(self) -> "HeldConnection":
        """What it takes to go on with it after this process has re-executed."""
        from agent.handover import HeldConnection

        return HeldConnection(
            id=self.id,
            client=self.client,
            pid=self._process.pid,
            socket=self._socket.fileno(),
            errors=self._errors,
            config=self._config,
            steps=frozenset(self._steps),
            user=self._user,
            last_line=self._last_line,
            started=self._started,
            was_cut=self.was_cut,
            login=None if self.session is None else _held_login(self.session),
        )

    def _remember(self, held: "HeldConnection") -> None:
        self.id, self._started, self.was_cut = held.id, held.started, held.was_cut
        self._steps, self._user, self._last_line = set(held.steps), held.user, held.last_line
        if held.login is not None:
            self.session = Session(
                id=held.id,
                client=held.client,
                user=held.login.user,
                key=held.login.key,
                fingerprint=held.login.fingerprint,
                process=self._process,
                connection=self._socket,
                started=held.login.started,
                started_at=held.login.started_at,
                terminals=set(held.login.terminals),
            )
            self._access.sessions.add(self.session)

    def _write_config(self) -> int:
        ours = {"SWARM_CLIENT": self.client.host.address, "SWARM_SESSION": self.id}
        environ = {**self._access.session_env, **ours}
        return sshd.connection_config(self._access.settings, environ)

    def _start(self) -> tuple[int, Child]:
        # In packets, one for each write (pipe(2), O_DIRECT): sshd writes a message at once, and a
        # user name with line breaks in it must not look like messages of sshd.
        reading, writing = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
        # O_NONBLOCK belongs to the open file, which sshd shares: it must block again.
        self._socket.setblocking(True)
        try:
            child = sshd.serve(
                self._access.settings,
                self._access.children,
                self._socket.fileno(),
                writing,
                self._config,
            )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        return reading, child

    def _read(self) -> bool:
        """Take one message of sshd; False when there is no more for now."""
        try:
            data = os.read(self._errors, _PACKET)
        except BlockingIOError:
            return False
        self._forget_config()  # sshd says nothing before it has read it
        if not data:
            self._loop.remove_reader(self._errors)
            return False
        self._heard(as_line(data))
        return True

    def _forget_config(self) -> None:
        if self._config >= 0:
            os.close(self._config)
            self._config = -1

    def _heard(self, line: str) -> None:
        event = parse(line)
        self._access.bus.publish(SshdSaid(session=self.id, line=line))
        self._steps.add(event.step)
        if event.step is not Step.NOISE:
            self._last_line = line
        if event.step is Step.ACCEPTED:
            self._accepted(event)
        elif event.terminal and self.session is not None:
            self._terminal_opened(self.session, event)
        elif event.user:
            self._user = event.user

    def _accepted(self, event: AuthEvent) -> None:
        if self.session is not None:
            return
        key = self._access.keyring.keys.name_of(event.fingerprint)
        self.session = Session(
            id=self.id,
            client=self.client,
            user=event.user,
            key=key,
            fingerprint=event.fingerprint,
            process=self._process,
            connection=self._socket,
            started=time.monotonic(),
        )
        self._access.sessions.add(self.session)
        self._access.bus.publish(
            SessionOpened(
                session=self.id,
                client=str(self.client),
                user=event.user,
                key=key,
                fingerprint=event.fingerprint,
                pid=self._process.pid,
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
        while self._read():
            pass
        self._loop.remove_reader(self._errors)
        os.close(self._errors)
        self._forget_config()
        if exited.result().signal is not None:
            # Its child for the login account would go on with the client, and nobody would know.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        verdict = judge(frozenset(self._steps), exited.result().code)
        if self.session is not None:
            self._session_closed(self.session, exited.result())
        else:
            self._access.bus.publish(self._closed(verdict))
        # The client waits for the end of the connection until the last duplicate is closed.
        self._socket.close()
        self._on_end(self, Outcome(self.client, verdict, self._user))

    def _closed(self, verdict: Verdict) -> ConnectionClosed | ConnectionUnused:
        client, seconds = str(self.client), time.monotonic() - self._started
        if verdict is Verdict.NOTHING and not self.was_cut:
            return ConnectionUnused(session=self.id, client=client, seconds=seconds)
        return ConnectionClosed(
            session=self.id,
            client=client,
            verdict="cut" if self.was_cut else verdict.value,
            user=self._user,
            reason=self._last_line,
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
        if Step.LEFT in self._steps:
            return "logged out"
        if Step.TIMEOUT in self._steps:
            return "client not responding"
        if status.signal is not None:
            return f"sshd ended by signal {status.signal}"
        return "connection lost"


def _held_login(session: Session) -> "HeldLogin":
    from agent.handover import HeldLogin

    return HeldLogin(
        user=session.user,
        key=session.key,
        fingerprint=session.fingerprint,
        started=session.started,
        started_at=session.started_at,
        terminals=frozenset(session.terminals),
    )


def as_line(message: bytes) -> str:
    """A message of sshd as one line: what a client has put in is made visible."""
    return safe.decoded(message.removesuffix(b"\n").removesuffix(b"\r"))
