"""A machine with services, driven by the files and commands that users have."""

import json
from pathlib import Path
from typing import Any

from tests.support import Box, until


class Services:
    """A box with a folder of service files."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box = box
        self.folder = folder
        folder.mkdir(mode=0o755)

    def write(self, text: str, name: str = "test.toml") -> None:
        """Put a file in place as editors do."""
        new = self.folder / f".{name}.new"
        new.write_text(text)
        new.chmod(0o644)
        new.rename(self.folder / name)

    def boot(self, text: str, environ: dict[str, str] | None = None, **how: Any) -> "Services":
        self.write(text)
        self.box.boot({"SWARM_SERVICES_DIR": str(self.folder)} | (environ or {}), **how)
        try:
            until(lambda: self.box.ask("/v1/services"), "the control socket")
        except AssertionError as error:
            said = self.box.agent("services").stderr
            raise AssertionError(f"{error}: {said}\n{self.box.said()[-4000:]}") from None
        return self

    def all(self) -> dict[str, dict[str, Any]]:
        report = json.loads(self.box.agent("services", "--json").stdout)
        return {entry["name"]: entry for entry in report["services"]}

    def becomes(self, name: str, state: str) -> dict[str, Any]:
        """Wait until a service is in a state."""

        def look() -> dict[str, Any] | None:
            report = self.box.ask("/v1/services") or {"services": []}
            found = [each for each in report["services"] if each["name"] == name]
            return found[0] if found and found[0]["state"] == state else None

        try:
            found = until(look, f"{name} {state}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.all()}\n{self.box.said()}") from None
        assert found is not None
        return found
