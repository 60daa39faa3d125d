"""The machine's fly.toml: the project's, comments included, with this machine's values.

It names no Dockerfile: flyctl would look for it next to that fly.toml, not in the checkout.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tomlkit
from tomlkit.items import Table

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent
"""The checkout; for an installed package, the folder that contains it."""

PRIVATE_PORT = 2223


@dataclass(frozen=True)
class Shape:
    """This machine's values in its fly.toml."""

    app: str
    region: str
    size: str
    memory_gb: int
    volume_gb: int
    retention: int
    build: bool = True
    autostart: bool = True
    private: bool = False
    env: Mapping[str, str] = field(default_factory=dict)


def checkout() -> Path | None:
    """The checkout that an image can be built from, if there is one."""
    return ROOT if (ROOT / "container" / "Dockerfile").exists() else None


def source() -> Path:
    """The project's fly.toml: the checkout's, else the one in the package."""
    there = ROOT / "fly.toml"
    return there if checkout() and there.exists() else PACKAGE / "fly.toml"


def text(shape: Shape) -> str:
    """The machine's fly.toml."""
    document = tomlkit.parse(source().read_text())
    document["app"] = shape.app
    document["primary_region"] = shape.region
    build = _table(document, "build")
    if shape.build:
        build.pop("dockerfile", None)
    else:
        document.pop("build")
    mount = _only(document, "mounts")
    mount["initial_size"] = f"{shape.volume_gb}gb"
    mount["snapshot_retention"] = shape.retention
    vm = _only(document, "vm")
    vm["size"], vm["memory"] = shape.size, f"{shape.memory_gb}gb"
    env = _table(document, "env")
    for name, value in shape.env.items():
        env[name] = value
    service = _only(document, "services")
    if not shape.autostart:
        service["auto_start_machines"] = False
    if shape.private:
        del document["services"]
        env["SWARM_PRIVATE_LISTEN"] = f"*:{PRIVATE_PORT}"
    return tomlkit.dumps(document)


def _table(document: tomlkit.TOMLDocument, name: str) -> Table:
    found = document.get(name)
    if not isinstance(found, Table):
        raise RuntimeError(f"{source()}: there is no [{name}]")
    return found


def _only(document: tomlkit.TOMLDocument, name: str) -> dict[str, object]:
    found = document.get(name)
    if not isinstance(found, list) or len(found) != 1:
        raise RuntimeError(f"{source()}: [[{name}]] must be there exactly once")
    table = found[0]
    assert isinstance(table, dict)
    return table
