"""The gate: accepts connections, identifies the client, and hands each connection to its own sshd.

listener → PROXY header → client → admission → sshd → verdict → strike → ban → admission.

Networks that have logged in before are served first; strangers wait for their turn
(`admission.py`). An error of one connection or of the machine (no descriptors, no processes) never
closes the listener.
"""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from agent.access.admission import Admission, Lane, Limits, Refusal
from agent.access.connection import Access, Connection, ConnectionRecord, Outcome, connect
from agent.access.jail import Jail
from agent.access.known import Known
from agent.access.listener import Listener, ListenError, Listening, listen
from agent.access.proxied import HeaderRecord, HeaderWait
from agent.access.proxy_header import Source
from agent.access.refusals import Refusals
from agent.access.values import Ban, Client, Peer, Verdict, from_peer
from agent.access.visitor import Visitor, stop_waiting, wait
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

SILENCE = 0.5
"""The share of the login grace time after which an idle connection counts as a strike."""

HOUSEKEEPING = 30.0
"""Seconds between clean-ups: old bans, connections that wait too long, counted refusals."""


@dataclass(slots=True)
class GateRecord:
    """The state of the gate: listeners, connections, bans and known networks."""

    jail: Jail
    known: Known
    listeners: dict[str, Listening] = field(default_factory=dict)
    """By the setting that names the place."""
    doors: dict[str, Admission[Visitor]] = field(default_factory=dict)
    """By the same setting: connections that have not logged in, waiting ones included."""
    headers: set[HeaderRecord] = field(default_factory=set)
    connections: dict[str, ConnectionRecord] = field(default_factory=dict)
    """Connections that have a sshd, by their id."""
    arrivals: int = 0
    """Connections that admission has decided on so far, refused ones included."""


class Gate:
    """Serves SSH. `served` is set once a connection logged in or ended."""

    def __init__(self, record: GateRecord, access: Access) -> None:
        """Open the listeners, and continue with the connections of the record.

        Raises `ListenError`, and then leaves the record unchanged.
        """
        self._access = access
        self._settings = access.settings
        self._record = record
        self.jail = record.jail
        self.known = record.known
        self._turns: dict[str, asyncio.TimerHandle] = {}
        self._visitors: dict[str, Visitor] = {}
        """Visitors with a sshd and without a login, by the id of their connection."""
        self._connections: dict[str, Connection] = {}
        self.refusals = Refusals(access.bus)
        self._listeners: list[Listener] = []
        self._headers: set[HeaderWait] = set()
        self._unknown_reported = False
        self._account_reported = False
        self._loop = asyncio.get_running_loop()
        self._housekeeping: asyncio.TimerHandle | None = None
        self.accepted = 0
        self.served = asyncio.Event()
        self._listen()
        self._open_doors()
        for header in list(record.headers):
            self._await_header(header)
        for connection in list(record.connections.values()):
            self._attend(connection)
        self._clean_up()

    def close(self) -> None:
        """Stop accepting connections. Those with a sshd continue; waiting ones are closed."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self._record.listeners.clear()
        for header in list(self._headers):
            header.stop()
            self._forget_header(header)
            header.connection.close()
        for door in self._record.doors.values():
            for visitor in door.tokens():
                if not visitor.connection:
                    self._close_visitor(visitor)
        for turn in self._turns.values():
            turn.cancel()
        if self._housekeeping is not None:
            self._housekeeping.cancel()

    @property
    def _places(self) -> "dict[str, Endpoint]":
        private = self._settings.private_listen
        places = {_PUBLIC: self._settings.listen}
        return places if private is None else places | {"SWARM_PRIVATE_LISTEN": private}

    def _listen(self) -> None:
        before = self._record.listeners
        opened = self._listen_everywhere(before)
        # All are open, so nothing fails from here on: close listeners that no setting names.
        for listening in before.values():
            if listening not in opened.values():
                listening.socket.close()
        self._record.listeners = opened
        proxied = self._settings.proxy_protocol == "required"
        for setting, listening in opened.items():
            arrived = (
                self._arrived_by_proxy
                if proxied and setting == _PUBLIC
                else partial(self._arrived, setting)
            )
            self._listeners.append(Listener(listening.socket, arrived, self._access.bus))

    def _listen_everywhere(self, before: Mapping[str, Listening]) -> dict[str, Listening]:
        """The listening sockets by setting. Raises `ListenError`.

        A socket that already listens in the right place is kept.
        """
        opened: dict[str, Listening] = {}
        try:
            for setting, endpoint in self._places.items():
                known = before.get(setting)
                opened[setting] = (
                    known
                    if known is not None and known.place == str(endpoint)
                    else Listening(str(endpoint), listen(endpoint, setting))
                )
        except ListenError:
            for listening in opened.values():
                if listening not in before.values():
                    listening.socket.close()
            raise
        return opened

    def _open_doors(self) -> None:
        # Each door has its own limits: a full door does not affect the other.
        doors, limits = self._record.doors, _limits(self._settings)
        for setting in self._places:
            doors.setdefault(setting, Admission(limits, self.jail, self.known))
        for setting, door in doors.items():
            door.limits = limits
            for visitor in door.tokens():
                if visitor.connection:
                    self._visitors[visitor.connection] = visitor
                else:
                    wait(visitor, self._spoke, self._close_visitor)
            self._loop.call_soon(self._serve_next, setting)

    def _attend(self, record: ConnectionRecord) -> None:
        """Attend to a connection that has a sshd."""
        self._record.connections[record.id] = record
        self._connections[record.id] = Connection(
            record, self._access, self._tried, self._logged_in, self._ended
        )

    def ban(self, network: Network, seconds: float | None, reason: str) -> Ban:
        """Ban a network, and close its connections without a login."""
        ban = self.jail.ban(network, seconds, clock(), reason)
        self._enforce(ban)
        return ban

    def unban(self, network: Network | None) -> int:
        """Lift one ban, or all. Returns how many were active."""
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
        """All listeners are open and accept connections now."""
        return bool(self._listeners) and not any(each.paused for each in self._listeners)

    @property
    def connections(self) -> int:
        """Connections that have a sshd now."""
        return len(self._connections)

    @property
    def awaits_banner(self) -> bool:
        """A client has not received the first bytes of its sshd yet."""
        return not all(each.has_banner for each in self._connections.values())

    @property
    def arrivals(self) -> int:
        """Connections that admission has decided on so far, refused ones included."""
        return self._record.arrivals

    @property
    def unauthenticated(self) -> int:
        """Connections that have not logged in yet."""
        return sum(door.unauthenticated for door in self._record.doors.values())

    @property
    def waiting(self) -> int:
        """Connections that wait for their turn."""
        return sum(door.waiting for door in self._record.doors.values())

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
            self._await_header(HeaderRecord(connection, proxy))

    def _is_proxy(self, host: Network) -> bool:
        # Our own address may be in the proxy's networks. A local process that connects from it is
        # not the proxy and must not claim to be another client. Loopback counts if it is listed.
        listed = any_covers(self._settings.proxy_networks, host)
        return listed and (is_loopback(host) or not is_own(host))

    def _await_header(self, record: HeaderRecord) -> None:
        connection, proxy = record.socket, record.proxy

        def arrived(wait: HeaderWait, source: Source | None) -> None:
            self._forget_header(wait)
            if source is not None:
                self._admit(connection, Client(source.host.behind_nat64()), _PUBLIC)
            else:
                self._report_unknown(proxy)
                self._admit(connection, Client(proxy.host, known=False), _PUBLIC)

        def refused(wait: HeaderWait, refusal: Refusal, detail: str) -> None:
            self._forget_header(wait)
            self._refuse(connection, refusal, str(proxy), detail)

        self._record.headers.add(record)
        self._headers.add(HeaderWait(record, arrived, refused))

    def _forget_header(self, wait: HeaderWait) -> None:
        self._headers.discard(wait)
        self._record.headers.discard(wait.record)

    def _report_unknown(self, proxy: Client) -> None:
        if not self._unknown_reported:
            self._unknown_reported = True
            self._access.bus.publish(ClientUnknown(proxy=str(proxy)))

    def _arrived(self, door: str, connection: socket.socket, peer: Peer) -> None:
        self._admit(connection, from_peer(peer), door)

    def _admit(self, connection: socket.socket, client: Client, door: str) -> None:
        self._record.arrivals += 1
        refusal = self._record.doors[door].decide(client, clock())
        if refusal is not None:
            self._refuse(connection, refusal, str(client))
        else:
            self._enter(connection, client, door)

    def _enter(self, connection: socket.socket, client: Client, door: str) -> None:
        """Queue a connection for its turn, which may be now; others may be closed for it."""
        visitor = Visitor(connection, client, door)
        for surplus in self._record.doors[door].arrived(visitor, client, clock()):
            same = self.jail.network(surplus.client.host) == self.jail.network(client.host)
            if self._close_visitor(surplus):
                refusal = Refusal.CLIENT_CAP if same else Refusal.TOTAL_CAP
                self.refusals.add(refusal, str(surplus.client), "", clock())
        self._serve_next(door)
        if not visitor.connection and connection.fileno() >= 0:
            wait(visitor, self._spoke, self._close_visitor)

    def _spoke(self, visitor: Visitor) -> None:
        self._record.doors[visitor.door].spoke(visitor)
        self._serve_next(visitor.door)

    def _serve_next(self, name: str) -> None:
        """Begin every turn that can begin now, and call this again when the next turn ends."""
        door = self._record.doors[name]
        while (visitor := door.next(clock())) is not None:
            self._serve(visitor)
        if name in self._turns:
            self._turns.pop(name).cancel()
        due = door.due(clock())
        if due is not None:
            self._turns[name] = self._loop.call_later(due, self._serve_next, name)

    def _serve(self, visitor: Visitor) -> None:
        """Start a sshd for a visitor."""
        stop_waiting(visitor)
        client, door = visitor.client, self._record.doors[visitor.door]
        try:
            record = connect(visitor.socket, client, self._access)
        except OSError as error:
            door.left(visitor)
            self._refuse(visitor.socket, Refusal.NO_PROCESS, str(client), str(error))
            return
        self.accepted += 1
        if door.lane(client, clock()) is not Lane.KNOWN:
            priority.lower(record.process.pid)
        visitor.connection = record.id
        self._visitors[record.id] = visitor
        self._attend(record)

    def _refuse(
        self, connection: socket.socket, refusal: Refusal, client: str, detail: str = ""
    ) -> None:
        connection.close()
        self.refusals.add(refusal, client, detail, clock())

    def _tried(self, connection: Connection) -> None:
        visitor = self._visitors.get(connection.id)
        if visitor is not None:
            self._record.doors[visitor.door].tried(visitor)

    def _logged_in(self, connection: Connection) -> None:
        priority.restore(connection.pid)
        if connection.client.known:
            self.jail.login(connection.client.host)
            self.known.opened(self.jail.network(connection.client.host), clock())
        self._leave(connection)
        self.served.set()

    def _leave(self, connection: Connection) -> None:
        """Remove a connection from the visitors, which frees its place."""
        visitor = self._visitors.pop(connection.id, None)
        if visitor is not None:
            self._record.doors[visitor.door].left(visitor)
            # Not within this call: serving the next connection may close other ones.
            self._loop.call_soon(self._serve_next, visitor.door)

    def _ended(self, connection: Connection, outcome: Outcome) -> None:
        del self._connections[connection.id], self._record.connections[connection.id]
        self._leave(connection)
        self.served.set()
        client, now = outcome.client, clock()
        if not client.known:
            return
        if connection.session is not None:
            self.known.closed(self.jail.network(client.host), now)
        if outcome.verdict is Verdict.BROKEN_ACCOUNT and not self._account_reported:
            self._account_reported = True
            self._access.bus.publish(AccountRefused(reason=outcome.last_line))
        if connection.was_cut:
            return
        silent = outcome.seconds >= SILENCE * self._settings.login_grace_time
        ban = self.jail.strike(client.host, outcome.verdict, now, silent=silent)
        if ban is not None:
            self._enforce(ban)

    def _enforce(self, ban: Ban) -> None:
        dry_run = self._settings.ban_dry_run
        doors = () if dry_run else self._record.doors.values()
        found = [each for door in doors for each in door.overlapping(ban.network)]
        cut = [each for each in found if each.client.known and self._close_visitor(each)]
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

    def _close_visitor(self, visitor: Visitor) -> bool:
        """Close a connection that has not logged in. False if it turns out to have a session."""
        if not visitor.connection:
            stop_waiting(visitor)
            self._record.doors[visitor.door].left(visitor)
            visitor.socket.close()
            return True
        connection = self._connections[visitor.connection]
        connection.catch_up()
        if connection.session is not None:
            return False
        self._leave(connection)
        connection.cut()
        return True

    def _clean_up(self) -> None:
        now = clock()
        for network in self.jail.expire(now):
            self._access.bus.publish(BanLifted(network=str(network), reason="expired"))
        for door in self._record.doors.values():
            for visitor in door.overdue(now, self._settings.login_grace_time):
                self._close_visitor(visitor)
        self.refusals.flush(now)
        self._housekeeping = self._loop.call_later(HOUSEKEEPING, self._clean_up)


def _limits(settings: Settings) -> Limits:
    return Limits(
        allow=settings.allow_from,
        deny=settings.deny_from,
        unauthenticated=settings.max_unauthenticated,
        unauthenticated_per_client=settings.max_unauthenticated_per_client,
        connections_per_minute=settings.max_connections_per_minute,
        enforce_bans=not settings.ban_dry_run,
    )
