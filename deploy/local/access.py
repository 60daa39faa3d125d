"""Where the stand-in's API is, and how a flyctl is pointed at it; it is started where none runs."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec

_PATIENCE = 30.0


class AccessError(Exception):
    """The stand-in does not start; the message says why."""


class Access(msgspec.Struct, frozen=True):
    """A running stand-in: its address, the token that it takes, its process."""

    url: str
    token: str
    pid: int

    def environ(self, folder: Path) -> dict[str, str]:
        """What points a flyctl at it, and keeps it from everything else."""
        return {
            "FLY_API_BASE_URL": self.url,
            "FLY_FLAPS_BASE_URL": self.url,
            "FLY_UIEX_BASE_URL": self.url,
            "FLY_API_TOKEN": self.token,
            "FLY_CONFIG_DIR": str(folder / "flyctl"),
            "FLY_SEND_METRICS": "0",
            "FLY_NO_UPDATE_CHECK": "1",
            "FLY_NO_INCIDENTS_CHECK": "1",
        }

    def write(self, folder: Path) -> None:
        """Tell whoever looks for it."""
        new = folder / "access.new"
        new.touch(mode=0o600)
        new.write_bytes(msgspec.json.encode(self))
        new.rename(folder / "access.json")

    @staticmethod
    def remove(folder: Path) -> None:
        """It serves no more."""
        (folder / "access.json").unlink(missing_ok=True)


def find(folder: Path) -> Access | None:
    """The stand-in that serves a folder, if one does."""
    try:
        found = msgspec.json.decode((folder / "access.json").read_bytes(), type=Access)
        os.kill(found.pid, 0)
    except (FileNotFoundError, ProcessLookupError, msgspec.DecodeError):
        return None
    return found


def ensure(folder: Path) -> Access:
    """The stand-in that serves a folder, started where none does. Raises `AccessError`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found := find(folder):
            return found
        (folder / "access.json").unlink(missing_ok=True)
        log = folder / "server.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "deploy.local.server", str(folder.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
            )
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and process.poll() is None:
            if found := find(folder):
                return found
            time.sleep(0.02)
    said = log.read_text(errors="replace")[-1000:]
    raise AccessError(f"the stand-in for the platform does not start: {said}")
