"""The platform's records: apps, addresses, volumes, snapshots, secrets, machines.

Only the stand-in's server writes it; everybody else asks the server.
"""

import os
import zlib
from pathlib import Path

import msgspec

FOLDER_VARIABLE = "SWARM_LOCAL"
_DEFAULT = "~/.local/state/swarm/local"
_LOOPBACKS = 128 * 62_500
AS_USUAL = -1
"""Instead of a status: answer this request normally."""

REGIONS = ("ams", "fra", "lhr", "iad", "sjc", "syd")


class Snapshot(msgspec.Struct):
    """A copy of a volume at one time (RFC 3339); without an ID while it is being made."""

    id: str
    volume: str
    created_at: str
    size_gb: int
    retention_days: int
    status: str = "created"


class Volume(msgspec.Struct):
    """A disk on a host; its content is in `volumes/ID`."""

    id: str
    app: str
    name: str
    region: str
    size_gb: int
    host: str
    created_at: str
    state: str = "created"
    snapshot_retention: int = 5
    scheduled_snapshots: bool = True


class Mount(msgspec.Struct, frozen=True):
    """A volume in a machine."""

    path: str = ""
    volume: str = ""
    name: str = ""


class Port(msgspec.Struct, frozen=True):
    """A public port and what the edge does on it."""

    port: int = 0
    handlers: list[str] = []


class Service(msgspec.Struct, frozen=True):
    """A service that the edge accepts connections for."""

    internal_port: int = 0
    protocol: str = "tcp"
    ports: list[Port] = []
    autostart: bool = True


class Check(msgspec.Struct, frozen=True):
    """A health check."""

    type: str = "tcp"
    port: int = 0
    path: str = "/"


class GuestConfig(msgspec.Struct, frozen=True):
    """The size of a machine."""

    cpu_kind: str = "shared"
    cpus: int = 1
    memory_mb: int = 256


class Config(msgspec.Struct, frozen=True):
    """The parts of a machine's configuration that the stand-in uses; the rest is kept unread."""

    image: str = ""
    guest: GuestConfig = GuestConfig()
    env: dict[str, str] = {}
    mounts: list[Mount] = []
    services: list[Service] = []
    checks: dict[str, Check] = {}
    metadata: dict[str, str] = {}


class Event(msgspec.Struct):
    """Something that happened to a machine; milliseconds since 1970."""

    type: str
    status: str
    source: str
    timestamp: int
    exit_code: int | None = None


class MachineRecord(msgspec.Struct):
    """A machine; `config` is what the API was given, unread."""

    id: str
    app: str
    name: str
    region: str
    host: str
    config: msgspec.Raw
    created_at: str
    updated_at: str
    version: str
    secrets: dict[str, str] = {}
    """The values as of its last deploy or update."""
    state: str = "stopped"
    """Its state while it is not running."""
    events: list[Event] = []

    @property
    def read(self) -> Config:
        """The configuration, read."""
        return msgspec.json.decode(self.config, type=Config)


class Address(msgspec.Struct):
    """A public address of an app."""

    id: str
    address: str
    type: str
    """`v4`, `v6` or `shared_v4`."""
    created_at: str


class Secret(msgspec.Struct):
    """A value that cannot be read back."""

    value: str
    updated_at: str


class Release(msgspec.Struct):
    """One deploy."""

    id: str
    version: int
    status: str
    image_ref: str
    created_at: str
    definition: msgspec.Raw = msgspec.Raw(b"null")


class App(msgspec.Struct):
    """An app; `loopback` is its own IPv4 address on this computer."""

    id: int
    name: str
    org: str
    loopback: str
    created_at: str
    addresses: list[Address] = []
    secrets: dict[str, Secret] = {}
    secrets_version: int = 0
    releases: list[Release] = []


class Host(msgspec.Struct):
    """A computer of the platform: its free memory, and whether it answers."""

    name: str
    region: str
    free_mb: int = 1 << 20
    status: str = "ok"


class Organization(msgspec.Struct):
    """An organisation."""

    slug: str
    name: str
    type: str = "PERSONAL"


def _hosts() -> list[Host]:
    return [Host(f"host-{region}", region) for region in REGIONS]


def _organizations() -> list[Organization]:
    return [Organization("personal", "You")]


class Conditions(msgspec.Struct):
    """The platform's conditions, which tests may change."""

    account: str = "you@this-computer"
    """Empty: nobody is logged in."""
    organizations: list[Organization] = msgspec.field(default_factory=_organizations)
    hosts: list[Host] = msgspec.field(default_factory=_hosts)
    taken: list[str] = []
    """Names of other people's apps."""
    most_apps: int = 1000
    images: list[str] = []
    """The images in the registry; empty: any image exists."""
    pace: float = 0.0
    """Seconds that each transitional state lasts."""
    distance: float = 0.0
    """Seconds that each answer takes, as over a network."""
    fail: list[int] = []
    """Statuses of the next answers, with a body that is not JSON; 0 cuts the connection."""


class Platform(msgspec.Struct):
    """All records."""

    conditions: Conditions = msgspec.field(default_factory=Conditions)
    apps: dict[str, App] = {}
    machines: dict[str, MachineRecord] = {}
    volumes: dict[str, Volume] = {}
    """Includes those of destroyed apps, for their snapshots."""
    snapshots: list[Snapshot] = []
    next_id: int = 1000


def folder() -> Path:
    """The folder of the platform."""
    return Path(os.environ.get(FOLDER_VARIABLE) or _DEFAULT).expanduser()


def free_loopback(where: Path, platform: Platform) -> str:
    """An unused loopback address; platforms in other folders use other ranges."""
    begin = zlib.crc32(str(where).encode()) % _LOOPBACKS
    used = {app.loopback for app in platform.apps.values()}
    for number in range(begin, begin + _LOOPBACKS):
        within = number % _LOOPBACKS
        host = f"127.{64 + within // 62_500}.{within // 250 % 250}.{within % 250 + 2}"
        if host not in used:
            return host
    raise RuntimeError("every address of the loopback is in use")


def load(where: Path) -> Platform:
    """The platform as it was saved."""
    try:
        return msgspec.json.decode((where / "platform.json").read_bytes(), type=Platform)
    except FileNotFoundError:
        return Platform()


def save(where: Path, platform: Platform) -> None:
    """Save it atomically."""
    new = where / "platform.new"
    new.write_bytes(msgspec.json.encode(platform))
    new.chmod(0o600)
    new.rename(where / "platform.json")
