"""The laptop's files about each machine: its fly.toml, ssh configuration, and last known state.

They are in `~/.config/swarm/machines/NAME/`, can be recreated from the platform, and are no secret.
"""

import os
import re
import shutil
from pathlib import Path

import msgspec

FOLDER_VARIABLE = "SWARM_HOME"
NAME = re.compile(r"[a-z][a-z0-9-]{1,38}[a-z0-9]", re.ASCII)
"""A name for an app at Fly.io and for a host in ssh's configuration."""

SSH_CONFIG_VARIABLE = "SWARM_SSH_CONFIG"


class Move(msgspec.Struct):
    """A move to another host in progress: the old machine and volume, and the new ones."""

    machine: str
    volume: str
    region: str
    new_volume: str = ""
    new_machine: str = ""


class Deployed(msgspec.Struct):
    """The result of the last run, so that the next does only what differs. Hashes, no secrets."""

    local: bool = False
    region: str = "ams"
    size: str = "shared-cpu-2x"
    memory_gb: int = 2
    volume_gb: int = 10
    retention: int = 14
    """Days that snapshots are kept."""
    image: str = ""
    """The published image that it runs; empty: built from a checkout."""
    private: bool = False
    parked: bool = False
    env: dict[str, str] = {}
    """Settings of this machine (`SWARM_…`), besides those of the project's fly.toml."""
    deployed: str = ""
    """Fingerprint of what was deployed last."""
    deployed_at: float = 0.0
    secrets: dict[str, str] = {}
    """Name → SHA-256 of the value set last."""
    secrets_at: dict[str, float] = {}
    """Name → when (Unix time)."""
    host_key: str = ""
    key: str = ""
    """The private key, if it is not one that ssh tries by default."""
    usage: str = ""
    """The last output of `swarm-agent usage`, and when."""
    seen: float = 0.0
    agents: str = ""
    """The last output of `swarm-agent agents --json`, and when."""
    agents_at: float = 0.0
    move: Move | None = None


class Place:
    """The folder of one machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = root() / "machines" / name
        self.config = self.folder / "fly.toml"
        self.ssh_config = self.folder / "ssh_config"
        self.known_hosts = self.folder / "known_hosts"

    @property
    def exists(self) -> bool:
        """Whether this laptop knows the machine."""
        return (self.folder / "state.json").exists()

    def state(self) -> Deployed:
        """The result of the last run."""
        try:
            return msgspec.json.decode((self.folder / "state.json").read_bytes(), type=Deployed)
        except FileNotFoundError:
            return Deployed()

    def keep(self, state: Deployed) -> None:
        """Save the state; a kill leaves either the old or the new one."""
        write(self.folder / "state.json", msgspec.json.format(msgspec.json.encode(state)))

    def write_config(self, state: Deployed) -> None:
        """Write the machine's fly.toml."""
        write(self.config, fly_config(self.name, state).encode())

    def forget(self) -> None:
        """Remove the laptop's files about the machine."""
        shutil.rmtree(self.folder, ignore_errors=True)


def root() -> Path:
    """The folder of everything that `swarm` keeps; absolute, because flyctl gets paths below it."""
    found = Path(os.environ.get(FOLDER_VARIABLE) or "~/.config/swarm").expanduser()
    return Path(os.path.abspath(found))


def all_names() -> list[str]:
    """The machines that this laptop knows."""
    return sorted(path.parent.name for path in (root() / "machines").glob("*/state.json"))


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file atomically; for a link, replace its target."""
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.chmod(mode)
    new.rename(path)


def fly_config(name: str, state: Deployed) -> str:
    """The project's fly.toml with this machine's name, region and sizes."""
    from deploy.swarm import template  # importing its TOML editor takes 15 ms

    shape = template.Shape(
        app=name,
        region=state.region,
        size=state.size,
        memory_gb=state.memory_gb,
        volume_gb=state.volume_gb,
        retention=state.retention,
        build=not state.image,
        autostart=not state.parked,
        private=state.private,
        env=state.env,
    )
    return template.text(shape)
