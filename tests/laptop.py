"""A laptop with the `swarm` command, and the stand-in for Fly's API that its flyctl talks to.

flyctl is the project's small one; SWARM_FLYCTL=/path/to/flyctl makes it the real one.
"""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import msgspec

from deploy.local import shapes, store
from tests import warm
from tests.support import make_key, until

SWARM = str(Path(sys.executable).with_name("swarm"))
REAL = os.environ.get("SWARM_FLYCTL", "")
STREAMS = "proxy|logs"
"""Commands of the small flyctl that run until a signal: each in a process of its own."""


# A flyctl that records its calls, and kills its caller at the chosen one. The real flyctl can only
# reach the loopback.
FLY = """\
#!/bin/sh
echo "$*" >>'{folder}/calls'
if [ -e '{folder}/plan' ]; then
    read -r when step <'{folder}/plan'
    at=$(wc -l <'{folder}/calls')
    if [ "$step" = "$at" ] && [ "$when" = before ]; then kill -9 $PPID; exit 1; fi
    if [ "$step" = "$at" ]; then {program} "$@"; kill -9 $PPID; exit 1; fi
fi
export HTTPS_PROXY=http://127.0.0.1:9 HTTP_PROXY=http://127.0.0.1:9 NO_PROXY=127.0.0.1
case "$1" in {streams}) exec {cold} "$@";; esac
exec {program} "$@"
"""


class Standing(msgspec.Struct, frozen=True):
    """The stand-in's records, for a test."""

    records: store.Platform
    builders_asked: list[str]


class Laptop:
    """A home with a key, a flyctl, and the swarm command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.platform = folder / "platform"
        self.ssh_folder = folder / "ssh"
        self.ssh_folder.mkdir(parents=True)
        self.key = make_key(self.ssh_folder / "id_ed25519")
        self.fly_path = folder / "bin" / "flyctl"
        self.fly_path.parent.mkdir()
        cold = REAL or f"{sys.executable} -m deploy.local.fly"
        program = REAL or warm.command()
        words = FLY.format(folder=folder, program=program, cold=cold, streams=STREAMS)
        self.fly_path.write_text(words)
        self.fly_path.chmod(0o755)
        self.access = warm.stand_in(self.platform)
        self.environ = {
            "PATH": f"{self.fly_path.parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "USER": "ann",
            "SWARM_LOCAL": str(self.platform),
            "SWARM_HOME": str(folder / "config"),
            "SWARM_SSH_CONFIG": str(self.ssh_folder / "config"),
            "PYTHONPATH": str(Path(__file__).parents[1]),
            **self.access.environ(self.platform),
        }

    def swarm(
        self, *words: str, given: str = "", limit: float = 180
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [SWARM, *words],
            env=self.environ,
            input=given,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
            timeout=limit,
            cwd=self.folder,
        )

    def well(self, *words: str, given: str = "") -> str:
        """Run a command that must succeed; returns its output."""
        result = self.swarm(*words, given=given)
        assert result.returncode == 0, f"{result.stdout}{result.stderr}\n{self.log()}"
        return result.stdout

    def up(self, name: str, *words: str, given: str = "") -> str:
        """A machine of a published image, as a real flyctl can make it here."""
        return self.well(
            "up", name, "--yes", "--image", "registry.example/swarm:1", *words, given=given
        )

    def fails(self, *words: str, given: str = "") -> str:
        """Run a command that must fail with a message and without a traceback."""
        result = self.swarm(*words, given=given)
        assert result.returncode not in (0, -9), result.stdout
        assert "Traceback" not in result.stderr, result.stderr
        return result.stderr

    def fly(self, *words: str, given: bytes = b"") -> "subprocess.CompletedProcess[str]":
        """flyctl itself."""
        done = subprocess.run(
            [str(self.fly_path), *words],
            env=self.environ,
            input=given,
            capture_output=True,
            check=False,
            cwd=self.folder,
        )
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def ssh(self, name: str, script: str, *options: str) -> str:
        """Run ssh as people do, with their own configuration."""
        config = str(self.ssh_folder / "config")
        result = subprocess.run(
            ["ssh", "-F", config, "-o", "BatchMode=yes", *options, name, script],
            capture_output=True,
            env=self.environ,
            text=True,
            errors="backslashreplace",
            check=False,
            timeout=90,
        )
        assert result.returncode == 0, f"{result.stderr}\n{self.log()}"
        return result.stdout

    def machines(self, name: str) -> list[shapes.MachineInfo]:
        found = self._ask("GET", f"/v1/apps/{name}/machines")
        return msgspec.json.decode(found, type=list[shapes.MachineInfo])

    def state(self, name: str) -> str:
        found = self.machines(name)
        return found[0].state if found else "none"

    def standing(self) -> Standing:
        return msgspec.json.decode(self._ask("GET", "/stand-in/platform"), type=Standing)

    def app(self, name: str) -> store.App:
        return self.standing().records.apps[name]

    def volumes(self, name: str) -> list[store.Volume]:
        found = self.standing().records.volumes.values()
        return [each for each in found if each.app == name and each.state == "created"]

    def port(self, name: str, inside: int) -> int:
        """The port on this computer that stands for a port of the app's machine."""
        found = msgspec.json.decode(self._ask("GET", f"/stand-in/apps/{name}/ports/{inside}"))
        return int(found["port"])

    def change(self, **values: object) -> None:
        """Change the platform's conditions."""
        self._ask("PATCH", "/stand-in/conditions", values)

    def log(self) -> str:
        """The stand-in's own output, and the end of the machines' logs."""
        paths = [self.platform / "server.log", *sorted((self.platform / "logs").glob("*.log"))]
        return "\n".join(
            f"{path.name}: {path.read_text(errors='replace')[-1500:]}" for path in paths
        )

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def down(self) -> None:
        """Stop the stand-in and all its machines."""
        os.kill(self.access.pid, signal.SIGTERM)
        gone = self.platform / "access.json"
        until(
            lambda: not Path(f"/proc/{self.access.pid}").exists() or _zombie(self.access.pid),
            "its end",
        )
        assert not gone.exists()

    def _ask(self, method: str, path: str, body: object = None) -> bytes:
        data = None if body is None else msgspec.json.encode(body)
        request = urllib.request.Request(self.access.url + path, data, method=method)
        request.add_header("Authorization", f"Bearer {self.access.token}")
        with urllib.request.urlopen(request) as answer:
            return bytes(answer.read())


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
