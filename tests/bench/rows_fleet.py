"""200 machines on the stand-in: `swarm list` and `swarm status --all` beside the API itself."""

import resource
import shutil
import tempfile
import time
from pathlib import Path

import msgspec

from deploy.local import store
from deploy.local.world import identity, now
from deploy.swarm import many
from deploy.swarm.fleet import Api
from tests.bench.rows_login import as_samples
from tests.bench.table import AGENT, Row, Target
from tests.laptop import Laptop

MACHINES = 200
_API = "the API alone"
_NEAR, _REAL = 0.0, 0.05
"""Seconds per answer: from this computer, and from a platform in the same region."""

_CONFIG = (
    b'{"image":"i","guest":{"cpu_kind":"shared","cpus":2,"memory_mb":2048},'
    b'"metadata":{"fly_process_group":"app"}}'
)


def fleet(runs: int) -> list[Row]:
    """Seconds for all of them, and the memory of the command."""
    folder = Path(tempfile.mkdtemp(prefix="swarm-fleet-"))
    (folder / "platform").mkdir()
    store.save(folder / "platform", _platform())
    for name in _names():
        place = folder / "config" / "machines" / name
        place.mkdir(parents=True)
        (place / "state.json").write_text("{}")
    laptop = Laptop(folder)
    try:
        rows = []
        for distance in (_REAL, _NEAR):
            laptop.change(distance=distance)
            api = [_api(laptop) for _ in range(runs)]
            for words in (("list",), ("status", "--all")):
                took = [_timed(laptop, *words) for _ in range(runs)]
                samples = as_samples({AGENT: took, _API: api})
                where = f"answers after {distance * 1000:.0f} ms"
                shown = f"swarm {' '.join(words)}, {MACHINES} machines, {where}"
                # From this computer the API is faster than the import of Python and click.
                targets = (Target(_API, 1.5),) if distance else ()
                rows.append(Row(shown, "s", samples, targets))
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        return [
            *rows,
            Row(f"its memory at most, {MACHINES} machines", "MB", as_samples({AGENT: [memory]})),
        ]
    finally:
        laptop.down()
        shutil.rmtree(folder)


def _names() -> list[str]:
    return [f"box-{number:03}" for number in range(MACHINES)]


def _platform() -> store.Platform:
    platform = store.Platform()
    for number, name in enumerate(_names(), 1001):
        platform.apps[name] = store.App(number, name, "personal", "127.99.0.1", now())
        machine = store.MachineRecord(
            identity("d8"),
            name,
            name,
            "ams",
            "host-ams",
            msgspec.Raw(_CONFIG),
            now(),
            now(),
            identity("01"),
        )
        platform.machines[machine.id] = machine
    return platform


def _api(laptop: Laptop) -> float:
    """The same requests from a running process, with the same concurrency."""
    api = Api(laptop.access.url, laptop.access.token)
    began = time.monotonic()
    found = list(many.as_done(_names(), lambda name: api.machines(name)[0].id))
    took = time.monotonic() - began
    assert all(each.says for each in found)
    return took


def _timed(laptop: Laptop, *words: str) -> float:
    began = time.monotonic()
    said = laptop.well(*words)
    took = time.monotonic() - began
    assert said.count("box-") >= MACHINES
    return took
