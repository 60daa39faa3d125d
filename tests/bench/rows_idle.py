"""Waking from sleep, and the cost of an idle agent."""

import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.init.proctree import descendants, read_process
from deploy.standin import MachineState
from tests.bench.contenders import Contender
from tests.bench.table import AGENT, Row, Samples
from tests.cloud import Cloud

TICKS = 100
SETTLE = 20.0


def wake(contender: Contender, runs: int) -> list[Row]:
    """From a client's connect to the banner, of a machine that sleeps on the stand-in."""
    stopped, suspended = [], []
    with tempfile.TemporaryDirectory() as folder:
        cloud = Cloud(Path(folder) / "cloud", contender.key)
        cloud.up(soon={}, command=contender.command)
        try:
            for _ in range(runs):
                cloud.do(cloud.standin.stop())
                cloud.becomes(MachineState.STOPPED)
                stopped.append(_until_banner(cloud.port))
                cloud.do(cloud.standin.suspend())
                cloud.becomes(MachineState.SUSPENDED)
                suspended.append(_until_banner(cloud.port))
        finally:
            cloud.down()
    return [
        Row("connect → banner of a stopped machine", "ms", (Samples(AGENT, tuple(stopped)),)),
        Row("connect → banner of a suspended machine", "ms", (Samples(AGENT, tuple(suspended)),)),
    ]


def idle(contenders: Sequence[Contender], seconds: float) -> list[Row]:
    """CPU and wake-ups of a whole idle stack, with the idle sleep on."""
    cpu, wakeups = [], []
    for entry in contenders:
        with entry.running() as ready:
            time.sleep(SETTLE)
            before = _ticks(ready.pid), _switches(ready.pid)
            time.sleep(seconds)
            after = _ticks(ready.pid), _switches(ready.pid)
        cpu.append(Samples(entry.name, ((after[0] - before[0]) / TICKS / seconds * 100,)))
        wakeups.append(Samples(entry.name, ((after[1] - before[1]) / seconds,)))
    over = f"idle for {seconds / 60:g} min: "
    most_cpu = (("≤ 0.1 % of a core", 0.1, False),)
    most_wakeups = (("≤ 2 a second", 2.0, False),)
    return [
        Row(over + "CPU of a core", "%", tuple(cpu), limits=most_cpu),
        Row(over + "wake-ups", "a second", tuple(wakeups), limits=most_wakeups),
    ]


def _until_banner(port: int) -> float:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        assert client.recv(4) == b"SSH-"
    return (time.monotonic() - began) * 1000


def _of_all(pid: int, count: Callable[[int], int]) -> int:
    return sum(count(each) for each in (pid, *(entry.pid for entry in descendants(pid))))


def _ticks(pid: int) -> int:
    def count(each: int) -> int:
        process = read_process(each)
        return 0 if process is None else process.cpu

    return _of_all(pid, count)


def _switches(pid: int) -> int:
    def count(each: int) -> int:
        total = 0
        for task in Path(f"/proc/{each}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
        return total

    return _of_all(pid, count)
