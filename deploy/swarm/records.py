"""The parts of flyctl's answers that we read (their casing differs from command to command)."""

from collections.abc import Iterable

import msgspec

from deploy.sizes import Guest

AWAKE = "started"
ASLEEP = ("stopped", "suspended", "created")
ON_THE_WAY = ("starting", "stopping", "suspending", "replacing", "restarting")
_SAYS = {
    AWAKE: "awake",
    "starting": "waking up",
    "restarting": "restarting",
    "stopping": "going to sleep",
    "suspending": "going to sleep",
    "stopped": "asleep (stopped)",
    "suspended": "asleep (suspended)",
    "created": "asleep (not started yet)",
    "replacing": "being replaced",
    "failed": "failed",
}
"""The platform's states in the words that we show everywhere."""

_GONE = ("destroying", "destroyed")
_OTHERS = ("fly_app_console", "fly_app_release_command", "fly_app_test_machine_command")


class App(msgspec.Struct, frozen=True, rename="pascal"):
    """An app."""

    name: str


class Address(msgspec.Struct, frozen=True, rename="pascal"):
    """A public address; `type` is `v4`, `v6`, `shared_v4`, `private_v6`."""

    address: str
    type: str

    @property
    def dedicated(self) -> bool:
        """Whether plain SSH can use it."""
        return self.type in ("v4", "v6")


class Region(msgspec.Struct, frozen=True):
    """A region of the platform."""

    code: str


class Volume(msgspec.Struct, frozen=True):
    """A volume of an app."""

    id: str
    name: str
    region: str
    size_gb: int
    state: str = "created"
    attached_machine_id: str | None = None
    snapshot_retention: int = 0
    host_status: str = "ok"


class Secret(msgspec.Struct, frozen=True):
    """A secret's name, capitalised by older versions of flyctl; its value cannot be read back."""

    name: str = ""
    Name: str = ""


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot of a volume; without an ID while it is being made."""

    id: str
    created_at: str
    status: str = ""
    volume_size: int = 0


class Mount(msgspec.Struct, frozen=True):
    """A volume in a machine."""

    volume: str = ""


class Service(msgspec.Struct, frozen=True):
    """A service that the edge accepts connections for."""

    autostart: bool = True


class Config(msgspec.Struct, frozen=True):
    """A machine's configuration."""

    guest: Guest = Guest()
    image: str = ""
    metadata: dict[str, str] = {}
    mounts: list[Mount] = []
    services: list[Service] = []


class _ExitEvent(msgspec.Struct, frozen=True):
    exit_code: int = 0
    oom_killed: bool = False
    requested_stop: bool = False


class _Request(msgspec.Struct, frozen=True):
    exit_event: _ExitEvent | None = None


class Event(msgspec.Struct, frozen=True):
    """Something that happened to a machine; milliseconds since 1970."""

    type: str = ""
    status: str = ""
    source: str = ""
    timestamp: int = 0
    request: _Request | None = None


class ListedMachine(msgspec.Struct, frozen=True):
    """An app's machine and its state; `config` is missing if its host does not answer."""

    id: str
    state: str
    region: str
    config: Config | None = None
    incomplete_config: Config | None = None
    host_status: str = "ok"
    events: list[Event] = []

    @property
    def known(self) -> Config:
        """The known part of its configuration."""
        return self.config or self.incomplete_config or Config()

    @property
    def reachable(self) -> bool:
        """Whether the platform reaches its host."""
        return self.host_status == "ok"

    @property
    def awake(self) -> bool:
        """Whether it is running."""
        return self.state == AWAKE

    @property
    def says(self) -> str:
        """Its state in words."""
        said = _SAYS.get(self.state, self.state)
        if not self.reachable:
            return f"{said}? (host {self.host_status})"
        if self.parked and self.state in ASLEEP:
            return "asleep (parked)"
        return said

    def failed_runs(self, since: float) -> int:
        """Runs that failed after a Unix time, since the machine was last created or changed."""
        count = 0
        for event in self.events:  # the latest first
            if event.type in ("launch", "update") or event.timestamp < since * 1000:
                break
            ended = event.request.exit_event if event.request is not None else None
            count += ended is not None and ended.exit_code != 0 and not ended.requested_stop
        return count

    @property
    def parked(self) -> bool:
        """Whether no connection wakes it."""
        services = self.known.services
        return bool(services) and not any(each.autostart for each in services)


class Executed(msgspec.Struct, frozen=True):
    """The result of a command in the machine; flyctl omits fields that are 0 or empty."""

    exit_code: int = 0
    stdout: str = ""
    stderr: str = ""


class Version(msgspec.Struct, frozen=True, rename="pascal"):
    """flyctl's version."""

    version: str


def chosen(machines: Iterable[ListedMachine]) -> list[ListedMachine]:
    """The user's machines, the awake one first."""
    found = [
        each
        for each in machines
        if each.state not in _GONE and each.known.metadata.get("fly_process_group") not in _OTHERS
    ]
    return sorted(found, key=lambda each: (not each.awake, each.id))
