"""What the laptop keeps of each machine: its fly.toml, ssh configuration, and what was done last.

`~/.config/swarm/machines/NAME/`. Everything here can be made again from the platform; nothing is
secret.
"""

import os
import re
import shutil
from pathlib import Path

import msgspec

FOLDER_VARIABLE = "SWARM_HOME"
NAME = re.compile(r"[a-z][a-z0-9-]{1,38}[a-z0-9]", re.ASCII)
"""An app's name at Fly.io, and a host's in ssh's configuration."""

SSH_CONFIG_VARIABLE = "SWARM_SSH_CONFIG"


class Move(msgspec.Struct):
    """A move to another host that is under way: what was, and what is made of it."""

    machine: str
    volume: str
    region: str
    new_volume: str = ""
    new_machine: str = ""


class State(msgspec.Struct):
    """What was done last, so that a second run does only what differs. Hashes, no secrets."""

    local: bool = False
    region: str = "ams"
    size: str = "shared-cpu-2x"
    memory_gb: int = 2
    volume_gb: int = 10
    retention: int = 14
    """Days that snapshots are kept."""
    image: str = ""
    """The published image that it runs; empty: one built from a checkout."""
    private: bool = False
    parked: bool = False
    env: dict[str, str] = {}
    """Settings of this machine (`SWARM_…`), beside those of the project's fly.toml."""
    deployed: str = ""
    """Fingerprint of what was deployed last."""
    deployed_at: float = 0.0
    secrets: dict[str, str] = {}
    """Name → SHA-256 of the value that was given last."""
    secrets_at: dict[str, float] = {}
    """Name → when (Unix time)."""
    host_key: str = ""
    key: str = ""
    """The private key, where it is not one that ssh tries by itself."""
    usage: str = ""
    """What `swarm-agent usage` said when the machine was last asked, and when."""
    seen: float = 0.0
    agents: str = ""
    """What `swarm-agent agents --json` said when the machine was last asked for it, and when."""
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
        """This laptop knows the machine."""
        return (self.folder / "state.json").exists()

    def state(self) -> State:
        """What was done last."""
        try:
            return msgspec.json.decode((self.folder / "state.json").read_bytes(), type=State)
        except FileNotFoundError:
            return State()

    def keep(self, state: State) -> None:
        """Remember; a kill leaves the old or the new."""
        write(self.folder / "state.json", msgspec.json.format(msgspec.json.encode(state)))

    def write_config(self, state: State) -> None:
        """Write the machine's fly.toml."""
        write(self.config, fly_config(self.name, state).encode())

    def forget(self) -> None:
        """Remove what the laptop keeps of the machine."""
        shutil.rmtree(self.folder, ignore_errors=True)


def root() -> Path:
    """Where everything of `swarm` lies; flyctl is given whole paths below it."""
    found = Path(os.environ.get(FOLDER_VARIABLE) or "~/.config/swarm").expanduser()
    return Path(os.path.abspath(found))


def all_names() -> list[str]:
    """The machines that this laptop knows."""
    return sorted(path.parent.name for path in (root() / "machines").glob("*/state.json"))


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file as a whole; a link stays one, and what it leads to is replaced."""
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.chmod(mode)
    new.rename(path)


def fly_config(name: str, state: State) -> str:
    """The project's fly.toml with this machine's name, region and sizes."""
    from deploy.swarm import template  # its TOML editor costs every command's start 15 ms

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
