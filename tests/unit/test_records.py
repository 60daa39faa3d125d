"""Records: what is held is known again by the next agent, every field of it."""

import asyncio
import io
import os
import pickle
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

import pytest

from agent.access.authlog import Step
from agent.access.connection import Access, Connection, ConnectionRecord
from agent.access.jail import Jail, Policy
from agent.access.sessions import Login, Session, Sessions
from agent.access.values import Client, Verdict
from agent.bus import Bus
from agent.init.children import Children, ExitStatus, HeldChild
from agent.init.descriptor import NONE, Descriptor
from agent.life.ending import Ending, Reload, Stop, StopRecord
from agent.life.reexec import _Pickler
from agent.network import Network
from agent.services.definition import parse
from agent.services.runner import Runner, ServiceRecord, ServiceState, Surroundings
from agent.settings import load

A, B = Network.parse("192.0.2.1"), Network.parse("198.51.100.0/24")
POLICY = Policy(3, 600, 600, 86400, 64, ())


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await test()

    asyncio.run(run())


def over_execve(record: Any) -> Any:
    """The record as the next agent reads it."""
    out = io.BytesIO()
    _Pickler(out).dump(record)
    return pickle.loads(out.getvalue())


def assert_all_differ(record: object, from_: object) -> None:
    """Each field says something: one that is forgotten would not be missed else."""
    for item in fields(type(record)):  # type: ignore[arg-type]  # records are dataclasses
        value = getattr(record, item.name)
        assert value != getattr(from_, item.name), item.name


def test_the_jail() -> None:
    def nobody(_: Network) -> bool:
        return False

    jail = Jail(POLICY, nobody)
    jail.strike(A, Verdict.FAILED, 10.0)
    jail.ban(B, 100.0, 20.0, "by hand")
    held = jail.hold(10)
    assert_all_differ(held, Jail(POLICY, nobody).hold(10))
    assert Jail.resume(over_execve(held), POLICY, nobody).hold(10) == held
    sparing = Jail.resume(over_execve(held), POLICY, nobody, lambda _network, _now: True)
    for _ in range(5):
        assert sparing.strike(A, Verdict.FAILED, 11.0) is None


def test_a_login() -> None:
    login = Login(
        id="a1",
        client=Client(A),
        user="dev",
        key="ann",
        fingerprint="SHA256:x",
        started=1.0,
        started_at=2.0,
        terminals={"pts/1"},
    )

    async def test() -> None:
        child = Children().adopt(HeldChild(os.getpid(), ExitStatus(0)))
        with socket.socket() as connection:
            held = Session.resume(over_execve(login), child, connection).hold()
        assert {f.name: getattr(held, f.name) for f in fields(Login)} == {
            f.name: getattr(login, f.name) for f in fields(Login)
        }

    in_loop(test)


def test_a_connection() -> None:
    async def test() -> None:
        here, there = socket.socketpair()
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        bus, children = Bus(), Children()
        settings = load({}, privileged=True).settings
        access = Access(settings, {}, None, children, None, Sessions(), bus)  # type: ignore[arg-type]
        record = ConnectionRecord(
            id="c0ffee",
            client=Client(A),
            process=HeldChild(4242, ExitStatus(255)),
            socket=Descriptor(here.detach()),
            errors=Descriptor(reading),
            config=NONE,
            started=3.0,
            steps={Step.FAILED},
            user="root",
            last_line="Failed publickey",
            was_cut=True,
        )
        ended: list[Connection] = []
        connection = Connection.resume(
            record, access, lambda _: None, lambda _: None, lambda c, _: ended.append(c)
        )
        assert connection.hold() == record
        assert connection.was_cut
        # Its sshd had ended before, and nobody had acted on that: it is acted on now.
        while not ended:  # noqa: ASYNC110  # a few turns of the loop
            await asyncio.sleep(0)
        assert there.recv(1) == b""
        os.close(writing)

    in_loop(test)


def test_a_service() -> None:
    service = parse("web", {"command": "sleep 9"}, _own_name())
    record = ServiceRecord(
        state=ServiceState.FAILED,
        detail="ended with status 1",
        since=5.0,
        started_at=4.0,
        starts=3,
        restarts=2,
        said=((1.0, "stdout", "line"),),
        wanted=False,
        process=None,
    )

    async def test() -> None:
        around = Surroundings(Children(), {}, {}, "dev", "/run/swarm", Bus())
        fresh = Runner(service, around, None)  # type: ignore[arg-type]  # it asks nobody here
        resumed = Runner.resume(over_execve(record), service, around, None)  # type: ignore[arg-type]
        assert resumed.hold(wanted=False) == record
        same = {"wanted", "process"}
        for item in {f.name for f in fields(ServiceRecord)} - same:
            assert getattr(record, item) != getattr(fresh.hold(wanted=False), item), item

    in_loop(test)


def test_what_was_asked_for_while_a_reload_was_pending() -> None:
    async def test() -> None:
        stop = Stop.start()
        stop.reload()
        stop.because(Ending.stopping("SIGTERM"))
        assert isinstance(await stop.wait(), Reload)
        record = StopRecord(Ending.stopping("SIGTERM"), signal.SIGTERM, hurry=True)
        assert_all_differ(record, Stop.start().hold())
        assert stop.hold().ending == record.ending
        resumed = Stop(over_execve(record))
        assert resumed.hold() == record
        assert await resumed.wait() == record.ending

    in_loop(test)


def test_descriptors_and_running_children_are_found_wherever_they_stand() -> None:
    pickler = _Pickler(io.BytesIO())
    pickler.dump(
        {"a": [HeldChild(7, None), HeldChild(8, ExitStatus(0))], "b": ((Descriptor(5),), NONE)}
    )
    assert (pickler.descriptors, pickler.pids) == ([5], [7])


def _own_name() -> str:
    import pwd

    return "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture(autouse=True)
def keep_signals() -> Any:
    """`Stop` takes signals; the tests that follow have them as before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
