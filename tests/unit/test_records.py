"""Records: the next agent knows what the previous one knew, and finds every live object."""

import ast
import asyncio
import io
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.access.authlog import Step
from agent.access.connection import Access, Connection, ConnectionRecord
from agent.access.gate import Gate, GateRecord
from agent.access.jail import Jail, Policy
from agent.access.known import Known
from agent.access.proxied import HeaderRecord
from agent.access.sessions import Session, Sessions
from agent.access.values import Client, Verdict
from agent.access.visitor import Visitor
from agent.bus import Bus
from agent.events import Event, PartFailed, SessionClosed
from agent.init.children import Child, Children, ExitStatus
from agent.init.descriptor import NONE, Descriptor
from agent.life.ending import Ending, Reload, Stop, StopRecord
from agent.life.parts import Part, Parts, When
from agent.life.records import PartRecords, Records
from agent.life.reexec import _Pickler, _Unpickler
from agent.network import Network, is_own
from agent.platform.account import find
from agent.services.backoff import Backoff
from agent.services.definition import Service, parse
from agent.services.load import Plan
from agent.services.output import Stream
from agent.services.process import Started
from agent.services.runner import ServiceRecord, ServiceState, Surroundings
from agent.services.supervisor import ServicesRecord, Supervisor
from agent.settings import load
from agent.settings.current import Current
from tests.claims import free_port

A, B = Network.parse("192.0.2.1"), Network.parse("198.51.100.0/24")
ROOT = Path(__file__).parents[2]
POLICY = Policy(3, 600, 600, 86400, 64, ())


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await test()

    asyncio.run(run())


def over_execve(record: Any, children: Children | None = None) -> Any:
    """The record as the next agent reads it. Sockets are shared with the original."""
    out = io.BytesIO()
    _Pickler(out).dump(record)
    return _Unpickler(io.BytesIO(out.getvalue()), children or Children()).load()


def ended_child() -> Child:
    return Children().adopt(4242, ExitStatus(255))


def access(bus: Bus, children: Children, sessions: Sessions) -> Access:
    listen = f"127.0.0.1:{free_port()}"
    settings = load({"SWARM_LISTEN": listen}, privileged=True).settings
    return Access(settings, {}, None, children, None, sessions, bus)  # type: ignore[arg-type]


def test_each_kind_has_one_record_which_is_made_once() -> None:
    records = Records()
    assert records.find(PartRecords) is None
    parts = records.of(PartRecords, PartRecords)
    assert records.of(PartRecords, PartRecords) is parts
    part = parts.of("state")
    assert part.of(Known, Known) is part.of(Known, Known)
    again = over_execve(records)
    assert isinstance(again.find(PartRecords).of("state").find(Known), Known)
    part.clear()
    assert part.find(Known) is None


def test_a_part_that_fails_at_once_costs_no_other_part_its_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def works(_: object, records: Records) -> None:
        records.of(Known, Known)

    def fails(_: object, records: Records) -> None:
        records.of(Sessions, Sessions)
        raise ValueError("a spoilt record")

    makers = {"works": works, "fails": fails}
    table = [Part(name, When.BANNER, make, at_once=True) for name, make in makers.items()]
    monkeypatch.setattr("agent.life.parts.TABLE", table)
    heard: list[Event] = []
    bus = Bus()
    bus.subscribe(heard.append)
    records = Records()
    Parts(SimpleNamespace(bus=bus), records).make_at_once()  # type: ignore[arg-type]  # they use no more
    kept = records.of(PartRecords, PartRecords)
    assert kept.of("works").find(Known) is not None
    assert kept.of("fails").find(Sessions) is None
    assert [event.part for event in heard if isinstance(event, PartFailed)] == ["fails"]


def test_living_things_are_found_wherever_they_stand() -> None:
    async def test() -> None:
        children = Children()
        here, there = socket.socketpair()
        running = Child(4711)
        record = {"a": [running, ended_child()], "b": ((Descriptor(5),), NONE), "c": {1: here}}
        out = io.BytesIO()
        pickler = _Pickler(out)
        pickler.dump([record, running, here])
        assert pickler.descriptors == {5, here.fileno()}
        found, same, end = _Unpickler(io.BytesIO(out.getvalue()), children).load()
        child, ended = found["a"]
        assert (child.pid, child.running, children._children) == (4711, True, {4711: child})
        assert (ended.running, ended.exited.result()) == (False, ExitStatus(255))
        # An object that was shared is still shared.
        assert same is child
        assert end is found["c"][1]
        end.send(b"x")
        assert there.recv(1) == b"x"
        here.detach()

    in_loop(test)


def test_the_jail_follows_another_policy() -> None:
    jail = Jail(POLICY, is_own)
    jail.strike(A, Verdict.FAILED, 10.0)
    jail.ban(B, 100.0, 20.0, "by hand")
    again = over_execve(jail)
    assert again.all() == jail.all()
    assert again.banned(Network.parse("198.51.100.7"), 21.0) == jail.all()[0]
    assert (again.strikes_given, again.weight(A, 11.0)) == (1, 1.0)


def test_sessions_and_their_connections_stay_one() -> None:
    """A session ends with its connection, even if both are from the previous agent."""

    async def test() -> None:
        here, there = socket.socketpair()
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        sessions, child = Sessions(), ended_child()
        session = Session(
            id="c0ffee",
            client=Client(A),
            user="dev",
            key="ann",
            fingerprint="SHA256:x",
            process=child,
            connection=here,
            terminals={"pts/1"},
        )
        sessions.add(session)
        record = ConnectionRecord(
            id="c0ffee",
            client=Client(A),
            process=child,
            socket=here,
            errors=Descriptor(reading),
            config=NONE,
            started=3.0,
            steps={Step.ACCEPTED},
            session=session,
        )
        bus = Bus()
        closed: list[Event] = []
        bus.subscribe(closed.append)
        sessions, record = over_execve((sessions, record))
        here.detach()
        assert list(sessions) == [record.session]
        assert record.session is not None
        assert record.session.terminals == {"pts/1"}
        ended: list[Connection] = []
        Connection(
            record,
            access(bus, Children(), sessions),
            lambda _: None,
            lambda _: None,
            lambda connection, _: ended.append(connection),
        )
        # Its sshd had exited before, and nothing had handled that: it is handled now.
        while not ended:  # noqa: ASYNC110  # a few turns of the loop
            await asyncio.sleep(0)
        assert not list(sessions)
        assert [event.key for event in closed if isinstance(event, SessionClosed)] == ["ann"]
        assert there.recv(1) == b""
        os.close(writing)

    in_loop(test)


def test_everybody_at_the_gate_is_still_there() -> None:
    async def test() -> None:
        known = Known()
        gate_access = access(Bus(), Children(), Sessions())
        gate = Gate(GateRecord(Jail(POLICY, is_own, known.spared), known), gate_access)
        record = gate._record
        await asyncio.sleep(0)  # its first look at who waits is over
        ends = [socket.socketpair() for _ in range(2)]
        record.headers.add(HeaderRecord(ends[0][0], Client(A), b"PROXY TC"))
        waiting = Visitor(ends[1][0], Client(A), "SWARM_LISTEN")
        record.doors["SWARM_LISTEN"].arrived(waiting, Client(A), 1.0)
        record.arrivals = 7
        again = over_execve(record)
        # It listens with the same socket, and its doors ask the same jail.
        listening, before = (each.listeners["SWARM_LISTEN"].socket for each in (again, record))
        assert listening.getsockname() == before.getsockname()
        assert again.doors["SWARM_LISTEN"]._jail is again.jail
        assert again.jail._spares.__self__ is again.known
        (header,) = again.headers
        assert (header.data, header.proxy, header.socket.fileno()) == (
            b"PROXY TC",
            Client(A),
            ends[0][0].fileno(),
        )
        (visitor,) = again.doors["SWARM_LISTEN"].tokens()
        assert (visitor.client, visitor.socket.fileno()) == (Client(A), ends[1][0].fileno())
        assert again.arrivals == 7
        for kept in (header.socket, visitor.socket, listening):
            kept.detach()
        gate.close()

    in_loop(test)


def a_service() -> Service:
    return parse("web", {"command": "sleep 9"}, _own_name())


def supervisor(record: ServicesRecord) -> Supervisor:
    settings = load({}, privileged=True).settings
    around = Surroundings(Children(), {}, {}, "dev", "/run/swarm", Bus())
    account = find(_own_name())
    return Supervisor(record, around, Current(settings), account, None)  # type: ignore[arg-type]


def test_a_service_that_is_over_stays_so_with_its_lines_and_counts() -> None:
    service = a_service()
    backoff = Backoff(service)
    backoff.restarts = 2
    each = ServiceRecord(
        backoff=backoff, state=ServiceState.FAILED, detail="ended with status 1", starts=3
    )
    record = ServicesRecord(Plan({"f": {"web": service}}), {"web": each})

    async def test() -> None:
        first = supervisor(record).runners["web"]
        first.ring.add(1.0, "stdout", "line")
        again = supervisor(over_execve(record)).runners["web"]
        kept = again.record
        assert (kept.state, kept.detail) == (ServiceState.FAILED, "ended with status 1")
        assert (kept.starts, again.restarts, kept.backoff.restarts) == (3, 2, 2)
        assert [line.text for line in again.ring.after(0)] == ["line"]

    in_loop(test)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_process_of_a_service_is_seen_through(wanted: bool) -> None:
    """Its exit was not handled yet: the rest of its output is read, and it is over."""

    async def test() -> None:
        reading, writing = os.pipe()
        os.write(writing, b"the last line\n")
        os.close(writing)
        started = Started("web", ended_child(), {"stdout": Stream(Descriptor(reading))}, 0, None)
        service = a_service()
        each = ServiceRecord(
            backoff=Backoff(service),
            state=ServiceState.RUNNING if wanted else ServiceState.STOPPING,
            process=started,
            ready_since=1.0,
        )
        names = {"web"} if wanted else set[str]()
        record = ServicesRecord(Plan({"f": {"web": service}}), {"web": each}, names)
        made = supervisor(over_execve(record))
        runner = made.runners["web"]
        while runner.record.process is not None:  # noqa: ASYNC110  # a few turns of the loop
            await asyncio.sleep(0)
        assert runner.ring.last(1) == "the last line"
        if wanted:
            assert runner.record.state is ServiceState.BACKOFF
        while not wanted and made._tasks:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0)
        assert ("web" in made._record.wanted) is wanted
        await made.stop_all(asyncio.get_running_loop().time() + 1)

    in_loop(test)


def test_what_was_asked_for_while_a_reload_was_pending() -> None:
    async def test() -> None:
        record = StopRecord()
        stop = Stop(record)
        stop.reload()
        stop.because(Ending.stopping("SIGTERM"))
        stop.because(Ending.stopping("later"))
        assert isinstance(await stop.wait(), Reload)
        stop._signalled(signal.SIGTERM)
        assert not stop.hurry.is_set()
        stop._signalled(signal.SIGINT)
        again = over_execve(record)
        assert again == StopRecord(Ending.stopping("SIGTERM"), signal.SIGINT, hurry=True)
        resumed = Stop(again)
        assert resumed.hurry.is_set()
        assert (await resumed.wait(), resumed.signal) == (again.ending, signal.SIGINT)

    in_loop(test)


TRANSIENT = {
    "Connection": {},
    "Gate": {
        "_housekeeping": "a timer",
        "_unknown_reported": "reported once by each agent",
        "_account_reported": "as above",
        "accepted": "whether the first client of this agent was served",
    },
    "HeaderWait": {},
    "Stop": {},
    "Watch": {
        "_signals": "made from the settings",
        "_looked": "the next agent looks at once",
        "_next_beat": "and writes its heartbeat",
    },
    "Budget": {"_counted": "who counts now"},
    "Crew": {"_next_look": "the next agent looks at once", "_stopping": "nothing follows a stop"},
    "Notifier": {"_next_test": "a test message more", "_saved": "what the page has"},
    "Runner": {"_notify": "made for the socket of the record"},
    "Supervisor": {
        "_changed": "who waits waits again",
        "_deadline": "nothing follows a stop",
        "refused": "the files are read again",
    },
    "Memory": {},
    "RunJournal": {},
    "Wall": {
        "names": "made from the settings",
        "addresses": "looked up again",
        "refused": "counted again",
    },
}
"""Fields that a class with a record changes outside of it, and why they need not survive."""


def test_what_changes_is_in_a_record_or_need_not_survive() -> None:
    """A new field that changes is put in the record, or gets its reason above."""
    found = {}
    for path in (ROOT / "agent").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and _takes_record(node):
                found[node.name] = _changed_outside(node)
    assert found == {name: set(reasons) for name, reasons in TRANSIENT.items()}


def _takes_record(kind: ast.ClassDef) -> bool:
    given = [
        ast.unparse(argument.annotation)
        for method in kind.body
        if isinstance(method, ast.FunctionDef) and method.name == "__init__"
        for argument in method.args.args
        if argument.annotation is not None
    ]
    return any(annotation.endswith("Record") for annotation in given)


def _changed_outside(kind: ast.ClassDef) -> set[str]:
    """The attributes of `self` that methods other than `__init__` set."""
    return {
        node.attr
        for method in kind.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
        if method.name != "__init__"
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if ast.unparse(node.value) == "self"
    }


def _own_name() -> str:
    import pwd

    return "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture(autouse=True)
def keep_signals() -> Any:
    """Restore the signal handlers that `Stop` replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
