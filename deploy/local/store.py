"""What the platform remembers: apps, addresses, volumes, secrets, machines. One writer."""

import fcntl
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

FOLDER_VARIABLE = "SWARM_LOCAL"
_DEFAULT = "~/.local/state/swarm/local"


class Snapshot(msgspec.Struct):
    """A copy of a volume at one time (RFC 3339)."""

    id: str
    created_at: str


class Volume(msgspec.Struct):
    """A disk; its content lies in `volumes/ID`."""

    id: str
    name: str
    region: str
    size_gb: int
    snapshots: list[Snapshot] = []


class Machine(msgspec.Struct):
    """What a machine was made of by the last deploy."""

    id: str
    region: str
    volume: str
    environ: dict[str, str]
    cpu_kind: str = "shared"
    cpus: int = 2
    memory_mb: int = 2048


class App(msgspec.Struct):
    """An app with at most one machine. `host` is its own address of the loopback."""

    name: str
    host: str
    addresses: list[tuple[str, str]] = []
    """Address and type (`v4`, `v6`)."""
    secrets: dict[str, str] = {}
    staged: dict[str, str | None] = {}
    volumes: list[Volume] = []
    machine: Machine | None = None


class Platform(msgspec.Struct):
    """Everything. `account` empty: nobody is logged in. `taken`: names of other people's apps."""

    account: str = "you@this-computer"
    apps: dict[str, App] = {}
    taken: list[str] = []
    regions: tuple[str, ...] = ("ams", "fra", "lhr", "iad", "sjc", "syd")
    most_apps: int = 1000


def folder() -> Path:
    """Where the platform lives."""
    return Path(os.environ.get(FOLDER_VARIABLE) or _DEFAULT).expanduser()


def free_host(where: Path, platform: Platform) -> str:
    """An address of the loopback that no app has; platforms in other folders use others."""
    network = 64 + zlib.crc32(str(where).encode()) % 128
    used = {app.host for app in platform.apps.values()}
    hosts = (f"127.{network}.{n // 250}.{n % 250 + 2}" for n in range(50_000))
    return next(host for host in hosts if host not in used)


@contextmanager
def opened(where: Path) -> Iterator[Platform]:
    """The platform, alone; changes are kept when the block ends well."""
    where.mkdir(parents=True, exist_ok=True)
    path = where / "platform.json"
    with (where / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = path.read_bytes() if path.exists() else b"{}"
        platform = msgspec.json.decode(before, type=Platform)
        yield platform
        after = msgspec.json.format(msgspec.json.encode(platform))
        if after != before:
            new = path.with_suffix(".new")
            new.write_bytes(after)
            new.chmod(0o600)
            new.rename(path)
