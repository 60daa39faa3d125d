"""A login, bulk data, and memory."""

import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from agent.init.proctree import descendants
from tests.bench.contenders import SSHD, STACK, Contender
from tests.bench.table import Row, Samples, Target

BULK = 1 << 30
SETTLE = 10.0


def login(contenders: Sequence[Contender], runs: int) -> Row:
    """A whole `ssh host true`, one contender after the other in each round."""
    values: dict[str, list[float]] = {entry.name: [] for entry in contenders}
    with ExitStack() as stack:
        for entry in contenders:
            stack.enter_context(entry.running())
            subprocess.run(entry.ssh("true"), check=True)
        for _ in range(runs):
            for entry in contenders:
                values[entry.name].append(timed_login(entry))
    return Row("login (ssh host true)", "ms", as_samples(values), (Target(SSHD, 1.05),))


def bulk(contenders: Sequence[Contender], runs: int) -> list[Row]:
    """1 GiB into and out of the machine."""
    sent: dict[str, list[float]] = {entry.name: [] for entry in contenders}
    received: dict[str, list[float]] = {entry.name: [] for entry in contenders}
    with ExitStack() as stack:
        for entry in contenders:
            stack.enter_context(entry.running())
        for _ in range(runs):
            for entry in contenders:
                local = f"head -c {BULK} /dev/zero"
                sent[entry.name].append(_rate(local, entry, "cat >/dev/null"))
                received[entry.name].append(_rate("true", entry, local))
    target = (Target(SSHD, 0.97, at_least=True),)
    return [
        Row("bulk into the machine", "MB/s", as_samples(sent), target),
        Row("bulk out of the machine", "MB/s", as_samples(received), target),
    ]


def memory(contenders: Sequence[Contender], runs: int) -> Row:
    """Memory of the whole idle stack, with shared pages divided among their users (PSS)."""
    values: dict[str, list[float]] = {entry.name: [] for entry in contenders}
    for _ in range(runs):
        for entry in contenders:
            with entry.running() as ready:
                time.sleep(SETTLE)
                pids = [ready.pid, *(process.pid for process in descendants(ready.pid))]
                values[entry.name].append(sum(map(proportional, pids)) / 1024)
    targets = (Target(STACK, 0.65),) if STACK in values else ()
    return Row(
        "memory when idle (PSS)",
        "MB",
        as_samples(values),
        targets,
        limits=(("≤ 50 MB", 50.0, False),),
    )


def _rate(local: str, contender: Contender, remote: str) -> float:
    began = time.monotonic()
    source = subprocess.Popen(["sh", "-c", local], stdout=subprocess.PIPE)
    command = contender.ssh(remote)
    subprocess.run(command, stdin=source.stdout, stdout=subprocess.DEVNULL, check=True)
    source.wait()
    return BULK / 1e6 / (time.monotonic() - began)


def timed_login(contender: Contender) -> float:
    """Milliseconds of one whole login."""
    began = time.monotonic()
    subprocess.run(contender.ssh("true"), check=True)
    return (time.monotonic() - began) * 1000


def proportional(pid: int) -> int:
    """The process's memory in KiB, shared pages divided among their users (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def as_samples(values: dict[str, list[float]]) -> tuple[Samples, ...]:
    """The samples of each contender, by name."""
    return tuple(Samples(name, tuple(numbers)) for name, numbers in values.items())
