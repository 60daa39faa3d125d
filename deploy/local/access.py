"""Finding the stand-in's API, starting it if none runs, and pointing a flyctl at it."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

_PATIENCE = 30.0


class AccessError(Exception):
    """The stand-in does not start; the message says why."""


class Access(msgspec.Struct, frozen=True):
    """A running stand-in: its address, its token and its process ID."""

    url: str
    token: str
    pid: int

    def environ(self, folder: Path) -> dict[str, str]:
        """The environment that points a flyctl at it and at nothing else."""
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
        """Write where it is, for clients."""
        new = folder / "access.new"
        new.touch(mode=0o600)
        new.write_bytes(msgspec.json.encode(self))
        new.rename(folder / "access.json")

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove the file: it no longer serves."""
        (folder / "access.json").unlink(missing_ok=True)


def find(folder: Path) -> Access | None:
    """The stand-in that serves this folder, if one runs."""
    try:
        found = msgspec.json.decode((folder / "access.json").read_bytes(), type=Access)
        os.kill(found.pid, 0)
    except (FileNotFoundError, ProcessLookupError, msgspec.DecodeError):
        return None
    return found


def ensure(folder: Path, start: Callable[[Path, int], Callable[[], bool]] | None = None) -> Access:
    """The stand-in that serves this folder, started if none runs. Raises `AccessError`.

    `start` gets the folder and a descriptor for output, and answers with what says that it runs.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found := find(folder):
            return found
        (folder / "access.json").unlink(missing_ok=True)
        log = folder / "server.log"
        with log.open("ab") as output:
            runs = (start or _start)(folder.resolve(), output.fileno())
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and runs():
            if found := find(folder):
                return found
            time.sleep(0.02)
    said = log.read_text(errors="replace")[-1000:]
    raise AccessError(f"the stand-in for the platform does not start: {said}")


def _start(folder: Path, output: int) -> Callable[[], bool]:
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.local.server", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        start_new_session=True,
    )
    return lambda: process.poll() is None
