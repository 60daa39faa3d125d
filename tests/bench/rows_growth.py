"""Growth with sessions, banned addresses, services and orphans; and the time of a stop.

The agent under the largest load comes first, then the same agent under less.
"""

import json
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agent.init.proctree import all_processes
from agent.state import audit, bans, usage
from tests.bench.contenders import S6, TINI, Contender, Prepared, behind_proxy, work_folder
from tests.bench.rows_gate import refusals_a_second
from tests.bench.rows_login import as_samples, proportional, timed_login
from tests.bench.rows_services import agent_with, until_marked
from tests.bench.table import AGENT, Row, Samples, Target
from tests.support import until

SESSIONS = (1, 50, 200, 500)
BANS = (10, 10_000, 1_000_000)
SERVICES = (1, 20, 200)
ORPHANS = 10_000
STOPPED_SESSIONS = 100
FRESH = 1.05
"""The greatest age of an HTTP answer of the agent, with a margin."""

_ORPHANS = f"""
import os
for _ in range({ORPHANS}):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
"""


def sessions(agent: Contender, counts: Sequence[int], runs: int) -> list[Row]:
    """A login, a scrape and the agent's memory while so many sessions are open."""
    logins: dict[str, list[float]] = {}
    scrapes: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    with agent.running() as machine, _many_sessions(agent) as more:
        until(lambda: _scraped(agent) > 0, "HTTP")
        timed_login(agent)
        for count in counts:
            more(count)
            name = AGENT if count == counts[-1] else _named(count, "session")
            logins[name] = [timed_login(agent) for _ in range(runs)]
            scrapes[name] = [_fresh_scrape(agent) for _ in range(runs)]
            memory[name] = [proportional(machine.pid) / 1024]
    least, most = _named(counts[0], "session"), _named(counts[-1], "session")
    return [
        Row(f"login while {most} are open", "ms", _agent_first(logins), (Target(least, 1.1),)),
        Row(f"scrape while {most} are open", "ms", _agent_first(scrapes)),
        Row(f"the agent's memory (PSS) with {most}", "MB", _agent_first(memory)),
    ]


def banned(agent: Contender, counts: Sequence[int], runs: int) -> list[Row]:
    """Refusing a banned client while so many addresses are banned, and their memory."""
    refusals: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    known: dict[str, list[float]] = {}
    slowest: dict[str, list[float]] = {}
    proxied = behind_proxy(agent)
    for count in counts:
        name = AGENT if count == counts[-1] else f"{count:,} banned"
        _write_bans(agent, count)
        began = time.monotonic()
        with proxied.running() as machine:
            worst = 0.0
            while not _knows(machine, count):
                asked = time.monotonic()
                assert machine.banner()
                worst = max(worst, time.monotonic() - asked)
                assert time.monotonic() < began + 300, "the bans are never known"
            known[name] = [time.monotonic() - began]
            slowest[name] = [worst * 1000]
            refusals[name] = [refusals_a_second(machine) for _ in range(runs)]
            memory[name] = [proportional(machine.pid) / 1024]
    least, most = f"{counts[0]:,} banned", f"{counts[-1]:,} banned"
    _write_bans(agent, 0)
    return [
        Row(
            f"refused on one core while {most}",
            "a second",
            _agent_first(refusals),
            (Target(least, 0.8, at_least=True),),
        ),
        Row(f"exec → all are known, {most}", "s", _agent_first(known)),
        Row(f"slowest banner meanwhile, {most}", "ms", _agent_first(slowest)),
        Row(f"the agent's memory (PSS), {most}", "MB", _agent_first(memory)),
    ]


def services(agent: Contender, counts: Sequence[int], runs: int) -> list[Row]:
    """exec → so many services run, and the agent's memory with them."""
    marks = work_folder("marks")
    started: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for count in counts:
        name = AGENT if count == counts[-1] else _named(count, "service")
        ours = agent_with(agent, marks, count)
        for _ in range(runs):
            with ours.prepared() as ready:
                started.setdefault(name, []).append(until_marked(ready, marks, count) * 1000)
                until(lambda: _scraped(agent) > 0, "HTTP")
                memory.setdefault(name, []).append(proportional(ready.pid) / 1024)
    most = _named(counts[-1], "service")
    return [
        Row(f"exec → {most} run", "ms", _agent_first(started)),
        Row(f"the agent's memory (PSS) with {most}", "MB", _agent_first(memory)),
    ]


def orphans(contenders: Sequence[Contender], runs: int) -> list[Row]:
    """A session leaves ten thousand orphans: until none of them is left."""
    took: dict[str, list[float]] = {}
    for entry in contenders:
        with entry.running() as machine:
            timed_login(entry)
            for _ in range(runs):
                began = time.monotonic()
                subprocess.run(entry.ssh(sys.executable, "-c", f"'{_ORPHANS}'"), check=True)
                until(lambda: not _zombies(machine), "no zombie", 60)
                took.setdefault(entry.name, []).append((time.monotonic() - began) * 1000)
    targets = tuple(Target(peer, 1.1) for peer in (TINI, S6) if peer in took)
    return [Row(f"{ORPHANS:,} orphans made and reaped", "ms", as_samples(took), targets)]


def stop(agent: Contender, runs: int) -> list[Row]:
    """SIGTERM with a hundred sessions open, until the machine has stopped in order."""
    took = []
    for _ in range(runs):
        with agent.running() as machine, _many_sessions(agent) as more:
            more(STOPPED_SESSIONS)
            began = time.monotonic()
            machine.machine.signal()
            assert machine.machine.wait(60) == 0
            took.append(time.monotonic() - began)
    name = f"stop with {STOPPED_SESSIONS} sessions"
    samples = (Samples(AGENT, tuple(took)),)
    return [Row(name, "s", samples, limits=(("≤ 5 s", 5.0, False),))]


def reload(agent: Contender, runs: int) -> list[Row]:
    """The slowest banner while the agent re-executes in place, with and without sessions."""
    slowest: dict[str, list[float]] = {}
    with agent.running() as machine, _many_sessions(agent) as more:
        until(lambda: _scraped(agent) > 0, "HTTP")
        for count in (0, STOPPED_SESSIONS):
            more(count)
            name = AGENT if count else "no session"
            for _ in range(runs):
                slowest.setdefault(name, []).append(_slowest_banner_in_a_reload(machine))
    name = f"slowest banner in a reload with {STOPPED_SESSIONS} sessions"
    return [Row(name, "ms", _agent_first(slowest))]


def _slowest_banner_in_a_reload(machine: Prepared) -> float:
    worst = 0.0
    with subprocess.Popen(machine.agent_command("reload"), stdout=subprocess.DEVNULL) as reloading:
        while reloading.poll() is None:
            began = time.monotonic()
            assert machine.banner()
            worst = max(worst, time.monotonic() - began)
    assert reloading.returncode == 0
    return worst * 1000


@contextmanager
def _many_sessions(agent: Contender) -> Iterator["_Opener"]:
    opener = _Opener(agent)
    try:
        yield opener
    finally:
        for client in opener.clients:
            client.kill()
        for client in opener.clients:
            client.wait()


class _Opener:
    """Opens sessions until there are enough; each runs cat(1)."""

    def __init__(self, agent: Contender) -> None:
        self._agent = agent
        self.clients: list[subprocess.Popen[bytes]] = []

    def __call__(self, count: int) -> None:
        while len(self.clients) < count:
            batch = [self._open() for _ in range(min(20, count - len(self.clients)))]
            self.clients += batch
            for client in batch:
                assert client.stdout is not None
                assert client.stdout.readline() == b"in\n"

    def _open(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._agent.ssh("echo in; exec cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )


def _scraped(agent: Contender) -> float:
    """Milliseconds of one scrape; 0 while nobody answers."""
    where = dict(agent.environ)["SWARM_HTTP_LISTEN"]
    began = time.monotonic()
    try:
        with urllib.request.urlopen(f"http://{where}/metrics", timeout=10) as answer:
            answer.read()
    except OSError:
        return 0.0
    return (time.monotonic() - began) * 1000


def _fresh_scrape(agent: Contender) -> float:
    """Milliseconds of a scrape that is not answered from the cache."""
    time.sleep(FRESH)
    return _scraped(agent)


def _write_bans(agent: Contender, count: int) -> None:
    """Put bans into the volume's database, like a previous run."""
    folder = agent.folder / "machine" / "volume" / ".swarm"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("state.db", "bans"):
        folder.joinpath(name).unlink(missing_ok=True)
    now = time.time()
    rows = (
        (f"{11 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.7", now - 60, now + 86400, 1, "3 failed")
        for n in range(count)
    )
    with sqlite3.connect(folder / "state.db") as database:
        for statement in (bans.SCHEMA, bans.INDEX, audit.SCHEMA, *usage.SCHEMA):
            database.execute(statement)
        database.executemany("INSERT INTO bans VALUES (?, ?, ?, ?, ?)", rows)
    database.close()


def _knows(machine: Prepared, count: int) -> bool:
    command = machine.agent_command("status", "--json")
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode == 0 and json.loads(done.stdout)["bans"] >= count


def _zombies(machine: Prepared) -> bool:
    """Exited children of the machine's init that nothing has waited for."""
    return any(each.state == "Z" and each.parent == machine.pid for each in all_processes())


def _agent_first(values: dict[str, list[float]]) -> tuple[Samples, ...]:
    return as_samples({AGENT: values[AGENT]} | values)


def _named(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count > 1 else ''}"
