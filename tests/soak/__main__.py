"""`make soak [MINUTES=60]`: a mixed load on the local stand-in; nothing may grow.

Each round: logins, a transfer, a flood of garbage and wrong keys, a service that crashes, scrapes;
every few rounds a sleep and a wake-up, and now and then a reload. After each round memory (PSS),
descriptors, threads and the database are read. The table goes to .bench/soak.md and .json; the exit
status is 1 if something grows.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.standin import MachineState
from tests.bench.rows_login import proportional
from tests.cloud import Cloud
from tests.support import make_key, until

WORK = Path(__file__).resolve().parents[2] / ".bench"
SLEEP_EVERY = 5
RELOAD_EVERY = 25
SETTLED = 0.2
"""The share of first rounds that are ignored, while caches fill."""

ENVIRON = {
    "SWARM_IDLE_TIMEOUT": "1h",
    "SWARM_SLEEP_MODE": "suspend",
    "SWARM_MAXRETRY": "1000",
    "SWARM_MAX_CONNECTIONS_PER_MINUTE": "100000",
}
SERVICE = '[service.crashes]\ncommand = ["sh", "-c", "echo alive; sleep 2; exit 3"]\n'
SERVICE += 'backoff = "500ms"\nbackoff_max = "500ms"\nmax_restarts = 1000000\n'


@dataclass(frozen=True)
class Sample:
    """The agent's resources after a round."""

    minute: float
    memory_mb: float
    descriptors: int
    threads: int
    database_kb: float


LIMITS: dict[str, float] = {
    "memory_mb": 4.0,
    "descriptors": 12,
    "threads": 4,
    "database_kb": 3072,
}
"""How much the last fifth of the rounds may exceed the first settled fifth. The latest 10,000
sessions are kept, about 2.5 MB of database."""


def main() -> int:
    """Run rounds for the given minutes."""
    minutes = float(os.environ.get("MINUTES", "60"))
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        key = make_key(Path(folder) / "key")
        services = Path(folder) / "services.d"
        services.mkdir()
        Path(folder).chmod(0o755)
        (services / "soak.toml").write_text(SERVICE)
        cloud = Cloud(Path(folder) / "cloud", key)
        cloud.up(ENVIRON | {"SWARM_SERVICES_DIR": str(services)})
        try:
            samples = _live(cloud, minutes)
        finally:
            cloud.down()
    text, grown = _table(samples)
    WORK.joinpath("soak.md").write_text(text)
    WORK.joinpath("soak.json").write_text(json.dumps([asdict(each) for each in samples], indent=1))
    print(text)
    return int(bool(grown))


def _live(cloud: Cloud, minutes: float) -> list[Sample]:
    began = time.monotonic()
    samples: list[Sample] = []
    while time.monotonic() < began + minutes * 60:
        for _ in range(5):
            _works(cloud.ssh("true").returncode == 0)
        _works(cloud.ssh("head -c 20000000 /dev/zero | wc -c").stdout.strip() == "20000000")
        _flood(cloud.port)
        for _ in range(50):
            cloud.fetch("/metrics")
        if len(samples) % SLEEP_EVERY == SLEEP_EVERY - 1:
            cloud.do(cloud.standin.suspend())
            cloud.becomes(MachineState.SUSPENDED)
            _works(cloud.ssh("true").returncode == 0)
        network = f"203.0.113.{len(samples) % 250}"
        _works(cloud.agent("ban", network, "--for", "30s").returncode == 0)
        if len(samples) % RELOAD_EVERY == RELOAD_EVERY - 1:
            _works(cloud.agent("reload").returncode == 0)
        samples.append(_sample(cloud, (time.monotonic() - began) / 60))
        print(f"{samples[-1]}", file=sys.stderr, flush=True)
    return samples


def _flood(port: int) -> None:
    for number in range(100):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as attacker:
            if number % 2:
                attacker.sendall(b"GET / HTTP/1.0\r\n\r\n")


def _sample(cloud: Cloud, minute: float) -> Sample:
    # Connections of the flood are still closing.
    until(lambda: _open_sshds(cloud.machine.init) == 0, "the end of the flood")
    pid = cloud.machine.init
    database = cloud.machine.volume / ".swarm"
    size = sum(_size(path) for path in database.iterdir())
    return Sample(
        minute=round(minute, 2),
        memory_mb=round(proportional(pid) / 1024, 2),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=len(os.listdir(f"/proc/{pid}/task")),
        database_kb=round(size / 1024, 1),
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # a journal, which disappears after its transaction


def _open_sshds(pid: int) -> int:
    said = subprocess.run(
        ["pgrep", "-c", "-P", str(pid), "sshd"], capture_output=True, text=True, check=False
    )
    return int(said.stdout or 0)


def _works(what: bool) -> None:
    if not what:
        raise AssertionError("a login or a command failed")


def _table(samples: list[Sample]) -> tuple[str, list[str]]:
    fifth = max(1, len(samples) // 5)
    settled = samples[int(len(samples) * SETTLED) :] or samples
    lines = ["| what | at first | at last | most | may grow by | |", "|---|---|---|---|---|---|"]
    grown = []
    for name, limit in LIMITS.items():
        values = [float(getattr(each, name)) for each in settled]
        first, last = statistics.median(values[:fifth]), statistics.median(values[-fifth:])
        verdict = "flat" if last - first <= limit else "GROWS"
        if verdict != "flat":
            grown.append(name)
        lines.append(f"| {name} | {first:g} | {last:g} | {max(values):g} | {limit:g} | {verdict} |")
    lines.append(f"\n{len(samples)} rounds in {samples[-1].minute:g} minutes.")
    return "\n".join(lines) + "\n", grown


if __name__ == "__main__":
    raise SystemExit(main())
