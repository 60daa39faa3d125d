"""The gate: accepts connections, learns who is calling, and hands each to a sshd of its own.

listener → PROXY header → client → admission → sshd → verdict → strike → ban → admission.

Who was here before waits for nobody; strangers wait for their turn (`admission.py`). An error of
one connection, or of the machine (no descriptors, no processes), never ends the listener.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from agent.access.admission import Admission, Lane, Limits, Refusal
from agent.access.connection import Access, Connection, ConnectionRecord, Outcome
from agent.access.jail import Jail, JailRecord
from agent.access.known import Known
from agent.access.listener import Listener, ListenerRecord, ListenError, listen
from agent.access.proxied import HeaderRecord, HeaderWait
from agent.access.proxy_header import Source
from agent.access.refusals import Refusals
from agent.access.values import Ban, Client, Peer, Verdict, from_peer
from agent.access.visitor import Visitor, VisitorRecord
from agent.clock import clock
from agent.events import AccountRefused, BanLifted, BanStarted, ClientUnknown
from agent.init import priority
from agent.network import Network, any_covers, is_loopback, is_own
from agent.settings import Settings

if TYPE_CHECKING:
    from agent.settings.units import Endpoint

_PUBLIC = "SWARM_LISTEN"

HEADERS_WAITING = 256
"""Connections that may wait for their PROXY header at once."""

BANS_HELD = 10_000
"""Bans that a re-execution hands over; more of them are known again once the database is read."""

SILENCE = 0.5
"""The share of the login grace time after which saying nothing is a strike."""

HOUSEKEEPING = 30.0
"""Seconds between looks at what can be forgotten or summed up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRecord:
    """Everything at the gate; listeners by the setting that names them."""

    arrivals: int
    listeners: Mapping[str, ListenerRecord]
    connections: tuple[ConnectionRecord, ...]
    headers: tuple[HeaderRecord, ...]
    visitors: tuple[VisitorRecord, ...]
    jail: JailRecord
    logins: tuple[tuple[Network, float], ...]


class Gate:
    """Serves SSH. `served` is set once a connection logged in or ended."""

    def __init__(self, access: Access, jail: Jail, known: Known) -> None:
        self._access = access
        self._settings = access.settings
        self.jail = jail
        self.known = known
        # Each door has bounds of its own: who fills one keeps nobody out of the other.
        self._doors: dict[str, Admission[Visitor]] = {
            setting: Admission(_limits(access.settings), jail, known) for setting in self._places
        }
        self._turns: dict[str, asyncio.TimerHandle] = {}
        self._visitors: dict[Connection, Visitor] = {}
        """Those whose sshd runs and who have not logged in, by their connection."""
        self.refusals = Refusals(access.bus)
        self._listeners: dict[str, Listener] = {}
        self._connections: set[Connection] = set()
        self._headers: set[HeaderWait] = set()
        self._unknown_told = False
        self._account_told = False
        self._loop = asyncio.get_running_loop()
        self._housekeeping: asyncio.TimerHandle | None = None
        self.accepted = 0
        self.arrivals = 0
        """Clients that came so far, whether they were let in or not."""
        self.served = asyncio.Event()

    @classmethod
    def start(cls, access: Access, jail: Jail, known: Known) -> "Gate":
        """Listen from now on. Raises `ListenError`."""
        gate = cls(access, jail, known)
        gate._open({})
        return gate

    @classmethod
    def resume(cls, record: GateRecord, access: Access, jail: Jail, known: Known) -> "Gate":
        """Listen on, with everything that was at the gate. Raises `ListenError`.

        Then nothing was touched, and the record can be used again.
        """
        gate = cls(access, jail, known)
        gate._open(record.listeners)
        gate.arrivals = record.arrivals
        known.restore(record.logins, clock())
        for each in record.connections:
            gate._resume_connection(each)
        for header in record.headers:
            gate._resume_header(header)
        for visitor in record.visitors:
            waiting = socket.socket(fileno=visitor.socket)
            gate._enter(waiting, visitor.client, gate._door(visitor.door))
        return gate

    def hold(self) -> GateRecord:
        """Everything at the gate, for the next agent."""
        return GateRecord(
            arrivals=self.arrivals,
            listeners={
                setting: listener.hold(str(self._places[setting]))
                for setting, listener in self._listeners.items()
            },
            connections=tuple(each.hold() for each in self._connections),
            headers=tuple(header.hold() for header in self._headers),
            visitors=tuple(each.hold() for each in self._waiting()),
            jail=self.jail.hold(BANS_HELD),
            logins=tuple(self.known.logins(clock())),
        )

    def close(self) -> None:
        """Accept no more connections; open ones continue."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        for header in list(self._headers):
            header.stop()
            header.connection.close()
        self._headers.clear()
        for visitor in self._waiting():
            self._send_away(visitor)
        for turn in self._turns.values():
            turn.cancel()
        if self._housekeeping is not None:
            self._housekeeping.cancel()

    @property
    def _places(self) -> "dict[str, Endpoint]":
        private = self._settings.private_listen
        places = {_PUBLIC: self._settings.listen}
        return places if private is None else places | {"SWARM_PRIVATE_LISTEN": private}

    def _open(self, before: Mapping[str, ListenerRecord]) -> None:
        opened = self._listen_everywhere(before)
        # All are open: from here on nothing fails, and listeners that no setting names can close.
        kept = {listening.fileno() for listening in opened.values()}
        for record in before.values():
            if record.descriptor not in kept:
                os.close(record.descriptor)
        proxied = self._settings.proxy_protocol == "required"
        for setting, listening in opened.items():
            arrived = (
                self._arrived_by_proxy
                if proxied and setting == _PUBLIC
                else partial(self._arrived, setting)
            )
            self._listeners[setting] = Listener(listening, arrived, self._access.bus)
        self._keep_house()

    def _listen_everywhere(self, before: Mapping[str, ListenerRecord]) -> dict[str, socket.socket]:
        """By setting; what listens in the right place already is kept. Raises `ListenError`."""
        opened: dict[str, socket.socket] = {}
        try:
            for setting, endpoint in self._places.items():
                known = before.get(setting)
                opened[setting] = (
                    socket.socket(fileno=known.descriptor)
                    if known is not None and known.place == str(endpoint)
                    else listen(endpoint, setting)
                )
        except ListenError:
            # The settings from before will want what they had.
            kept = {record.descriptor for record in before.values()}
            for listening in opened.values():
                if listening.fileno() in kept:
                    listening.detach()
                else:
                    listening.close()
            raise
        return opened

    def _resume_connection(self, record: ConnectionRecord) -> None:
        entry = Connection.resume(record, self._access, self._tried, self._logged_in, self._ended)
        self._connections.add(entry)
        client, now = entry.client, clock()
        if entry.session is not None:
            if client.known:
                self.known.opened(self.jail.network(client.host), now)
        elif not entry.was_cut:
            visitor = self._visitors[entry] = Visitor(entry.stream, client, _PUBLIC)
            visitor.connection = entry
            self._doors[_PUBLIC].arrived(visitor, client, now, began=now)
            if entry.has_tried:
                self._doors[_PUBLIC].tried(visitor)

    def _resume_header(self, record: HeaderRecord) -> None:
        connection = socket.socket(fileno=record.socket)
        try:
            peer = connection.getpeername()
        except OSError:
            connection.close()  # it has gone meanwhile
            return
        self._await_header(connection, from_peer(peer), record.data)

    def ban(self, network: Network, seconds: float | None, reason: str) -> Ban:
        """Keep a network out from now on, and cut what it has open without a login."""
        ban = self.jail.ban(network, seconds, clock(), reason)
        self._enforce(ban)
        return ban

    def unban(self, network: Network | None) -> int:
        """Lift one ban, or all; how many held until now."""
        networks = [ban.network for ban in self.jail.active(clock())]
        lifted = networks if network is None else [network]
        count = 0
        for each in lifted:
            if self.jail.unban(each, clock()) is not None:
                count += 1
                self._access.bus.publish(BanLifted(network=str(each), reason="by hand"))
        return count

    @property
    def listening(self) -> bool:
        """New connections are taken now, in every place."""
        return bool(self._listeners) and not any(each.paused for each in self._listeners.values())

    @property
    def connections(self) -> int:
        """Connections that have a sshd now."""
        return len(self._connections)

    @property
    def awaits_banner(self) -> bool:
        """A client has not had the first bytes of its sshd."""
        return not all(each.has_banner for each in self._connections)

    @property
    def unauthenticated(self) -> int:
        """Connections that have not logged in yet."""
        return sum(door.unauthenticated for door in self._doors.values())

    @property
    def waiting(self) -> int:
        """Connections of strangers that wait for their turn."""
        return sum(door.waiting for door in self._doors.values())

    @property
    def undecided(self) -> int:
        """Connections that have neither logged in nor ended."""
        return len(self._headers) + self.unauthenticated

    def _arrived_by_proxy(self, connection: socket.socket, peer: Peer) -> None:
        proxy = from_peer(peer)
        if not self._is_proxy(proxy.host):
            self._refuse(connection, Refusal.NOT_PROXY, str(proxy))
        elif len(self._headers) >= HEADERS_WAITING:
            self._refuse(connection, Refusal.HEADER_CAP, str(proxy))
        else:
            self._await_header(connection, proxy)

    def _is_proxy(self, host: Network) -> bool:
        # Our own address may lie in the proxy's networks: a process in the machine that connects
        # to it is not the proxy, and must not name others. Loopback counts only where it is listed.
        listed = any_covers(self._settings.proxy_networks, host)
        return listed and (is_loopback(host) or not is_own(host))

    def _await_header(self, connection: socket.socket, proxy: Client, data: bytes = b"") -> None:
        def arrived(wait: HeaderWait, source: Source | None) -> None:
            self._headers.discard(wait)
            if source is not None:
                self._admit(connection, Client(source.host.behind_nat64()), _PUBLIC)
            else:
                self._tell_unknown(proxy)
                self._admit(connection, Client(proxy.host, known=False), _PUBLIC)

        def refused(wait: HeaderWait, refusal: Refusal, detail: str) -> None:
            self._headers.discard(wait)
            self._refuse(connection, refusal, str(proxy), detail)

        self._headers.add(HeaderWait(connection, arrived, refused, data))

    def _tell_unknown(self, proxy: Client) -> None:
        if not self._unknown_told:
            self._unknown_told = True
            self._access.bus.publish(ClientUnknown(proxy=str(proxy)))

    def _arrived(self, door: str, connection: socket.socket, peer: Peer) -> None:
        self._admit(connection, from_peer(peer), door)

    def _admit(self, connection: socket.socket, client: Client, door: str) -> None:
        self.arrivals += 1
        refusal = self._doors[door].decide(client, clock())
        if refusal is not None:
            self._refuse(connection, refusal, str(client))
        else:
            self._enter(connection, client, door)

    def _enter(self, connection: socket.socket, client: Client, door: str) -> None:
        """Let a connection wait for its turn, which may be now, and others go for it."""
        visitor = Visitor(connection, client, door)
        for going in self._doors[door].arrived(visitor, client, clock()):
            same = self.jail.network(going.client.host) == self.jail.network(client.host)
            if self._send_away(going):
                refusal = Refusal.CLIENT_CAP if same else Refusal.TOTAL_CAP
                self.refusals.add(refusal, str(going.client), "", clock())
        self._serve_next(door)
        if visitor.connection is None and connection.fileno() >= 0:
            visitor.wait(self._spoke, self._send_away)

    def _spoke(self, visitor: Visitor) -> None:
        self._doors[visitor.door].spoke(visitor)
        self._serve_next(visitor.door)

    def _serve_next(self, name: str) -> None:
        """Begin every turn that can begin now, and look again when the next one can."""
        door = self._doors[name]
        while (visitor := door.next(clock())) is not None:
            self._serve(visitor)
        if name in self._turns:
            self._turns.pop(name).cancel()
        due = door.due(clock())
        if due is not None:
            self._turns[name] = self._loop.call_later(due, self._serve_next, name)

    def _serve(self, visitor: Visitor) -> None:
        """Give a visitor a sshd."""
        visitor.stop_waiting()
        client, door = visitor.client, self._doors[visitor.door]
        try:
            entry = Connection.start(
                visitor.socket, client, self._access, self._tried, self._logged_in, self._ended
            )
        except OSError as error:
            door.left(visitor)
            self._refuse(visitor.socket, Refusal.NO_PROCESS, str(client), str(error))
            return
        self.accepted += 1
        if door.lane(client, clock()) is not Lane.KNOWN:
            priority.lower(entry.pid)
        visitor.connection = entry
        self._connections.add(entry)
        self._visitors[entry] = visitor

    def _refuse(
        self, connection: socket.socket, refusal: Refusal, client: str, detail: str = ""
    ) -> None:
        connection.close()
        self.refusals.add(refusal, client, detail, clock())

    def _tried(self, connection: Connection) -> None:
        visitor = self._visitors.get(connection)
        if visitor is not None:
            self._doors[visitor.door].tried(visitor)

    def _logged_in(self, connection: Connection) -> None:
        priority.restore(connection.pid)
        if connection.client.known:
            self.jail.login(connection.client.host)
            self.known.opened(self.jail.network(connection.client.host), clock())
        self._leave(connection)
        self.served.set()

    def _leave(self, connection: Connection) -> None:
        """It is no longer a visitor: its place is free."""
        visitor = self._visitors.pop(connection, None)
        if visitor is not None:
            self._doors[visitor.door].left(visitor)
            # Not within the call that ends it: what follows may be the end of others.
            self._loop.call_soon(self._serve_next, visitor.door)

    def _ended(self, connection: Connection, outcome: Outcome) -> None:
        self._connections.discard(connection)
        self._leave(connection)
        self.served.set()
        client, now = outcome.client, clock()
        if not client.known:
            return
        if connection.session is not None:
            self.known.closed(self.jail.network(client.host), now)
        if outcome.verdict is Verdict.BROKEN_ACCOUNT and not self._account_told:
            self._account_told = True
            self._access.bus.publish(AccountRefused(reason=outcome.last_line))
        if connection.was_cut:
            return
        silent = outcome.seconds >= SILENCE * self._settings.login_grace_time
        ban = self.jail.strike(client.host, outcome.verdict, now, silent=silent)
        if ban is not None:
            self._enforce(ban)

    def _enforce(self, ban: Ban) -> None:
        dry_run = self._settings.ban_dry_run
        found = (
            []
            if dry_run
            else [each for door in self._doors.values() for each in door.of(ban.network)]
        )
        cut = [each for each in found if each.client.known and self._send_away(each)]
        self._access.bus.publish(
            BanStarted(
                network=str(ban.network),
                seconds=ban.until - ban.since,
                times=ban.times,
                reason=ban.reason,
                cut=len(cut),
                dry_run=dry_run,
            )
        )

    def _waiting(self) -> list[Visitor]:
        return [
            visitor
            for door in self._doors.values()
            for visitor in door.tokens()
            if visitor.connection is None
        ]

    def _door(self, setting: str) -> str:
        """The door of this setting; the public one where it has been closed meanwhile."""
        return setting if setting in self._doors else _PUBLIC

    def _send_away(self, visitor: Visitor) -> bool:
        """End a connection that has not logged in; false where it turns out that it has."""
        connection = visitor.connection
        if connection is None:
            visitor.stop_waiting()
            self._doors[visitor.door].left(visitor)
            visitor.socket.close()
            return True
        connection.catch_up()
        if connection.session is not None:
            return False
        self._leave(connection)
        connection.cut()
        return True

    def _keep_house(self) -> None:
        now = clock()
        for network in self.jail.expire(now):
            self._access.bus.publish(BanLifted(network=str(network), reason="its time is over"))
        for door in self._doors.values():
            for visitor in door.overdue(now, self._settings.login_grace_time):
                self._send_away(visitor)
        self.refusals.flush(now)
        self._housekeeping = self._loop.call_later(HOUSEKEEPING, self._keep_house)


def _limits(settings: Settings) -> Limits:
    return Limits(
        allow=settings.allow_from,
        deny=settings.deny_from,
        unauthenticated=settings.max_unauthenticated,
        unauthenticated_per_client=settings.max_unauthenticated_per_client,
        connections_per_minute=settings.max_connections_per_minute,
        enforce_bans=not settings.ban_dry_run,
    )
