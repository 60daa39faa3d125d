"""The gate: accepts connections, learns who is calling, and hands each to a sshd of its own.

listener → PROXY header → client → admission → sshd → verdict → strike → ban → admission.

It keeps no connection waiting for another one, and an error of one connection, or of the
machine (no descriptors, no processes), never ends the listener.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.access.admission import Admission, Limits, Refusal
from agent.access.connection import Access, Connection, ConnectionRecord, Outcome
from agent.access.jail import Jail, JailRecord
from agent.access.listener import Listener, ListenerRecord, ListenError, listen
from agent.access.proxied import HeaderRecord, HeaderWait
from agent.access.proxy_header import Source
from agent.access.refusals import Refusals
from agent.access.values import Ban, Client, Peer, from_peer
from agent.clock import clock
from agent.events import BanLifted, BanStarted, ClientUnknown
from agent.network import Network, any_covers, is_loopback, is_own
from agent.settings import Settings

if TYPE_CHECKING:
    from agent.settings.units import Endpoint

_PUBLIC = "SWARM_LISTEN"

HEADERS_WAITING = 256
"""Connections that may wait for their PROXY header at once."""

BANS_HELD = 10_000
"""Bans that a re-execution hands over; more of them are known again once the database is read."""

HOUSEKEEPING = 30.0
"""Seconds between looks at what can be forgotten or summed up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRecord:
    """Everything at the gate; listeners by the setting that names them."""

    arrivals: int
    listeners: Mapping[str, ListenerRecord]
    connections: tuple[ConnectionRecord, ...]
    headers: tuple[HeaderRecord, ...]
    jail: JailRecord


class Gate:
    """Serves SSH. `served` is set once a connection logged in or ended."""

    def __init__(self, access: Access, jail: Jail) -> None:
        self._access = access
        self._settings = access.settings
        self.jail = jail
        self._admission: Admission[Connection] = Admission(_limits(access.settings), jail)
        self.refusals = Refusals(access.bus)
        self._listeners: dict[str, Listener] = {}
        self._connections: set[Connection] = set()
        self._headers: set[HeaderWait] = set()
        self._unknown_told = False
        self._loop = asyncio.get_running_loop()
        self._housekeeping: asyncio.TimerHandle | None = None
        self.accepted = 0
        self.arrivals = 0
        """Clients that came so far, whether they were let in or not."""
        self.served = asyncio.Event()

    @classmethod
    def start(cls, access: Access, jail: Jail) -> "Gate":
        """Listen from now on. Raises `ListenError`."""
        gate = cls(access, jail)
        gate._open({})
        return gate

    @classmethod
    def resume(cls, record: GateRecord, access: Access, jail: Jail) -> "Gate":
        """Listen on, with everything that was at the gate. Raises `ListenError`.

        Then nothing was touched, and the record can be used again.
        """
        gate = cls(access, jail)
        gate._open(record.listeners)
        gate.arrivals = record.arrivals
        for each in record.connections:
            gate._resume_connection(each)
        for header in record.headers:
            gate._resume_header(header)
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
            jail=self.jail.hold(BANS_HELD),
        )

    def close(self) -> None:
        """Take no more connections; those that are there go on."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        for header in list(self._headers):
            header.stop()
            header.connection.close()
        self._headers.clear()
        if self._housekeeping is not None:
            self._housekeeping.cancel()

    @property
    def _places(self) -> "dict[str, Endpoint]":
        private = self._settings.private_listen
        places = {_PUBLIC: self._settings.listen}
        return places if private is None else places | {"SWARM_PRIVATE_LISTEN": private}

    def _open(self, before: Mapping[str, ListenerRecord]) -> None:
        opened = self._listen_everywhere(before)
        # All are open: from here on nothing fails, and those that no setting names can go.
        kept = {listening.fileno() for listening in opened.values()}
        for record in before.values():
            if record.descriptor not in kept:
                os.close(record.descriptor)
        proxied = self._settings.proxy_protocol == "required"
        for setting, listening in opened.items():
            arrived = self._arrived_by_proxy if proxied and setting == _PUBLIC else self._arrived
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
        entry = Connection.resume(record, self._access, self._logged_in, self._ended)
        self._connections.add(entry)
        if entry.session is None and not entry.was_cut:
            self._admission.entered(entry, entry.client)

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
    def unauthenticated(self) -> int:
        """Connections that have not logged in yet."""
        return self._admission.unauthenticated

    @property
    def undecided(self) -> int:
        """Connections of which it is not known yet whether they log in."""
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
                self._admit(connection, Client(source.host))
            else:
                self._tell_unknown(proxy)
                self._admit(connection, Client(proxy.host, known=False))

        def refused(wait: HeaderWait, refusal: Refusal, detail: str) -> None:
            self._headers.discard(wait)
            self._refuse(connection, refusal, str(proxy), detail)

        self._headers.add(HeaderWait(connection, arrived, refused, data))

    def _tell_unknown(self, proxy: Client) -> None:
        if not self._unknown_told:
            self._unknown_told = True
            self._access.bus.publish(ClientUnknown(proxy=str(proxy)))

    def _arrived(self, connection: socket.socket, peer: Peer) -> None:
        self._admit(connection, from_peer(peer))

    def _admit(self, connection: socket.socket, client: Client) -> None:
        self.arrivals += 1
        refusal = self._admission.decide(client, clock())
        if refusal is not None:
            self._refuse(connection, refusal, str(client))
            return
        self.accepted += 1
        try:
            entry = Connection.start(connection, client, self._access, self._logged_in, self._ended)
        except OSError as error:
            self._refuse(connection, Refusal.NO_PROCESS, str(client), str(error))
            return
        self._connections.add(entry)
        self._admission.entered(entry, client)
        evicted = self._admission.to_evict()
        if evicted is not None and self._cut(evicted):
            self.refusals.add(Refusal.TOTAL_CAP, str(evicted.client), "", clock())

    def _refuse(
        self, connection: socket.socket, refusal: Refusal, client: str, detail: str = ""
    ) -> None:
        connection.close()
        self.refusals.add(refusal, client, detail, clock())

    def _logged_in(self, connection: Connection) -> None:
        self._admission.left(connection)
        if connection.client.known:
            self.jail.login(connection.client.host, clock())
        self.served.set()

    def _ended(self, connection: Connection, outcome: Outcome) -> None:
        self._connections.discard(connection)
        self._admission.left(connection)
        self.served.set()
        client = outcome.client
        if not client.known or connection.was_cut:
            return
        ban = self.jail.strike(client.host, outcome.verdict, clock())
        if ban is not None:
            self._enforce(ban)

    def _enforce(self, ban: Ban) -> None:
        dry_run = self._settings.ban_dry_run
        cut = [] if dry_run else self._admission.of(ban.network)
        cut = [entry for entry in cut if entry.client.known and self._cut(entry)]
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

    def _cut(self, connection: Connection) -> bool:
        """End a connection that has not logged in; false where it turns out that it has."""
        connection.catch_up()
        if connection.session is not None:
            return False
        self._admission.left(connection)
        connection.cut()
        return True

    def _keep_house(self) -> None:
        now = clock()
        for network in self.jail.expire(now):
            self._access.bus.publish(BanLifted(network=str(network), reason="its time is over"))
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
