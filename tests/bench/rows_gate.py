"""The gate under attack: refusals, bans, and honest logins meanwhile."""

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench import fail2ban
from tests.bench.contenders import Contender, Prepared, Unavailable, behind_proxy
from tests.bench.table import AGENT, Row, Samples
from tests.support import Key, make_key
from tests.world import World, world

FAIL2BAN = "sshd + fail2ban"
REFUSALS = 5000
ATTACKERS, NEWCOMERS = 50, 4
BANNED_WITHIN, AFTER_BANS = 60.0, 5.0
"""The most seconds until all attackers are banned, and the seconds for which they continue."""

Address = tuple[str, int]

_REFUSED = """
import socket, sys
from deploy.header import header
port, count = int(sys.argv[1]), int(sys.argv[2])
head = header(2, ("203.0.113.9", 5), ("10.0.0.1", 22))
for _ in range(count):
    with socket.create_connection(("127.0.0.1", port)) as probe:
        try:
            probe.sendall(head)
            assert not probe.recv(4)
        except ConnectionError:
            pass
"""

_LAST_FAILURE_TO_BAN = """
import json, socket, subprocess, sys, time
command, address, source = json.loads(sys.argv[1])
def banner():
    try:
        with socket.create_connection(address, timeout=5, source_address=(source, 0)) as probe:
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False
for _ in range(3):
    subprocess.run(command, capture_output=True)
began, admitted = time.monotonic(), 0
while banner():
    admitted += 1
    assert time.monotonic() < began + 30, "never banned"
print(json.dumps([(time.monotonic() - began) * 1000, admitted]))
"""


def refused(agent: Contender, runs: int) -> Row:
    """Connections of a banned client, each until it is closed, by the agent's own CPU time."""
    values = []
    with behind_proxy(agent).running() as ready:
        for _ in range(runs):
            values.append(refusals_a_second(ready))
    return Row(
        "banned connections refused on one core",
        "a second",
        (Samples(AGENT, tuple(values)),),
        limits=(("≥ 3000 a second", 3000, True),),
    )


def refusals_a_second(ready: Prepared) -> float:
    """Refusals of a banned client per second of the agent's own CPU time."""
    _ban_by_hand(ready, "203.0.113.9")
    before = _cpu_seconds(ready.pid)
    command = [sys.executable, "-c", _REFUSED, str(ready.contender.port), str(REFUSALS)]
    subprocess.run(command, check=True)
    return REFUSALS / (_cpu_seconds(ready.pid) - before)


def ban(agent: Contender, runs: int) -> list[Row]:
    """From the end of the third try at an unknown user to the first refusal, seen from outside."""
    note = ""
    with world() as internet:
        with behind_proxy(agent).running(), internet.edge(agent.port):
            results = {
                AGENT: _until_banned(internet, agent, (internet.edge_address, internet.port), runs)
            }
        try:
            with fail2ban.running(agent.key, internet.edge_address) as port:
                results[FAIL2BAN] = _until_banned(
                    internet, agent, (internet.edge_address, port), runs
                )
        except Unavailable as error:
            note = f"without fail2ban: {error}"
    times = tuple(Samples(name, tuple(t for t, _ in found)) for name, found in results.items())
    counts = tuple(Samples(name, tuple(n for _, n in found)) for name, found in results.items())
    return [
        Row("last failure → ban", "ms", times, note=note, limits=(("≤ 5 ms", 5, False),)),
        Row("let in after the last failure", "", counts, note=note, limits=(("none", 0, False),)),
    ]


def flood(contenders: Sequence[Contender], seconds: float) -> list[Row]:
    """Honest logins, one after the other, quiet and while 50 attackers hammer.

    Also one login each of some newcomers; then the results of the attackers.
    """
    quiet, under, failures, newcomers, outcome = [], [], [], [], []
    with world(friends=1 + NEWCOMERS) as internet:
        for entry in contenders:
            with _reachable(entry, internet) as address:
                calm, _ = _honest(entry, internet, address, seconds / 2)
                with _attack(entry, internet, address):
                    times, refused = _honest(entry, internet, address, seconds)
                    new, kept_out = _first_logins(entry, internet, address)
                    if entry.name == AGENT:
                        outcome = _of_attackers(entry, internet)
            quiet.append(Samples(entry.name, calm))
            under.append(Samples(entry.name, times))
            newcomers.append(Samples(entry.name, (max(new, default=math.inf),)))
            failures.append(Samples(entry.name, (float(refused + kept_out),)))
    return [
        Row("honest login, quiet", "ms", tuple(quiet), note=_tails(quiet)),
        Row(
            f"honest login while {ATTACKERS} attackers hammer",
            "ms",
            tuple(under),
            note=f"{_tails(under)}; {_slower(under, quiet)}",
        ),
        Row("honest logins refused meanwhile", "", tuple(failures), limits=(("none", 0, False),)),
        Row(
            f"slowest login of {NEWCOMERS} who were never here, meanwhile",
            "ms",
            tuple(newcomers),
            limits=(("≤ 5 s", 5000, False),),
        ),
        *outcome,
    ]


def _first_logins(
    contender: Contender, internet: World, address: Address
) -> tuple[list[float], int]:
    """The time of each newcomer's successful login, in ms, and the number of refusals."""
    times = []
    for number in range(2, 2 + NEWCOMERS):
        source = internet.friend(number)
        command = internet.client(_ssh(contender, contender.key, address, source, "dev"))
        began = time.monotonic()
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            times.append((time.monotonic() - began) * 1000)
    return times, NEWCOMERS - len(times)


def _of_attackers(agent: Contender, internet: World) -> list[Row]:
    """The attackers' results in the agent's log, once each had time to be banned and return."""
    attackers = {internet.stranger(number) for number in range(1, ATTACKERS + 1)}
    bans: dict[str, str] = {}
    end = time.monotonic() + BANNED_WITHIN
    while len(bans) < ATTACKERS and time.monotonic() < end:
        time.sleep(1.0)
        found = {each["network"]: each["timestamp"] for each in _said(agent, "ban.started")}
        bans = {network: at for network, at in found.items() if network in attackers}
    time.sleep(AFTER_BANS)
    late = [
        each
        for each in _said(agent, "ssh.connection.closed")
        # The ban itself closes open connections.
        if each["timestamp"] > bans.get(each["client"], "~") and each["verdict"] != "cut"
    ]
    banned = Samples(AGENT, (float(len(bans)),))
    admitted = Samples(AGENT, (float(len(late)),))
    return [
        Row("attackers banned", "", (banned,), limits=(("all", ATTACKERS, True),)),
        Row("attackers let in after their ban", "", (admitted,), limits=(("none", 0, False),)),
    ]


def _said(agent: Contender, event: str) -> list[dict[str, str]]:
    """The events of one kind in the agent's log of this run."""
    lines = agent.log.read_text(errors="replace").splitlines()
    records = [json.loads(line) for line in lines if f'"event": "{event}"' in line]
    starts = [
        json.loads(line)["timestamp"] for line in lines if '"event": "boot.listening"' in line
    ]
    return [record for record in records if record["timestamp"] >= starts[-1]]


def _until_banned(
    internet: World, contender: Contender, address: Address, runs: int
) -> list[tuple[float, float]]:
    results = []
    for number in range(1, runs + 1):
        source = internet.stranger(number)
        command = _ssh(contender, contender.key, address, source, "nosuchuser")
        words = json.dumps([command, address, source])
        python = [sys.executable, "-c", _LAST_FAILURE_TO_BAN, words]
        out = subprocess.run(internet.client(python), capture_output=True, text=True, check=True)
        milliseconds, admitted = json.loads(out.stdout)
        results.append((milliseconds, float(admitted)))
    return results


@contextmanager
def _reachable(contender: Contender, internet: World) -> Iterator[Address]:
    """The contender as clients reach it: the agent behind the edge, a sshd directly."""
    if contender.name == AGENT:
        with behind_proxy(contender).running(), internet.edge(contender.port):
            yield internet.edge_address, internet.port
    else:
        with contender.running():
            yield internet.edge_address, contender.port


def _honest(
    contender: Contender, internet: World, address: Address, seconds: float
) -> tuple[tuple[float, ...], int]:
    """The time of each successful login, in ms, and the number of refusals."""
    command = internet.client(_ssh(contender, contender.key, address, internet.friend(1), "dev"))
    times, refusals, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0:
            times.append((time.monotonic() - began) * 1000)
        else:
            refusals += 1
    return tuple(times), refusals


@contextmanager
def _attack(contender: Contender, internet: World, address: Address) -> Iterator[None]:
    """Real SSH clients at full speed, with only idle CPU time, because real attackers would run on
    other computers."""
    folder = contender.folder / "attack"
    folder.mkdir(exist_ok=True)
    path = folder / "stranger"
    stranger = Key(path) if path.exists() else make_key(path)
    stop = threading.Event()

    def hammer(source: str) -> None:
        client = ["chrt", "--idle", "0", *_ssh(contender, stranger, address, source, "dev")]
        while not stop.is_set():
            subprocess.run(internet.client(client), capture_output=True, check=False)

    threads = [
        threading.Thread(target=hammer, args=(internet.stranger(number),))
        for number in range(1, ATTACKERS + 1)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _ssh(contender: Contender, key: Key, address: Address, source: str, user: str) -> list[str]:
    options = {
        "IdentityFile": str(key.path),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "no",
        "BatchMode": "yes",
        "BindAddress": source,
        "Port": str(address[1]),
        "ConnectTimeout": "30",
    }
    listed = [f"-o{name}={value}" for name, value in options.items()]
    return ["ssh", "-F", "none", *listed, f"{user}@{address[0]}", "true"]


def _ban_by_hand(ready: Prepared, address: str) -> None:
    command = ready.agent_command("ban", address)
    deadline = time.monotonic() + 30
    while subprocess.run(command, capture_output=True, check=False).returncode != 0:
        assert time.monotonic() < deadline, "the control socket does not answer"
        time.sleep(0.1)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _tails(samples: Sequence[Samples]) -> str:
    return "p99: " + ", ".join(f"{entry.contender} {_p99(entry):.0f} ms" for entry in samples)


def _slower(under: Sequence[Samples], quiet: Sequence[Samples]) -> str:
    ratio = _p99(under[0]) / _p99(quiet[0])
    return f"the agent's p99 is {ratio:.2f} x quiet, ≤ 1.25: {'met' if ratio <= 1.25 else 'MISSED'}"


def _p99(samples: Samples) -> float:
    ordered = sorted(samples.values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
