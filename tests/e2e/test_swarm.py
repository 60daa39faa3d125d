"""The laptop's command from nothing to a working machine and out again, with real ssh.

flyctl is the stand-in of deploy/local: it takes exactly the commands and flags of flyctl's
published reference, keeps state as the platform does, and runs machines on this computer.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local import store
from tests.support import make_key, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(1500)]

SWARM = str(Path(sys.executable).with_name("swarm"))

# A flyctl that counts its calls, and at the chosen one pulls the plug of whoever called it.
FLY = """\
#!{python}
import os, signal, subprocess, sys
folder = {folder!r}
def number():
    with open(folder + "/calls", "a+") as file:
        file.write(" ".join(sys.argv[1:]) + "\\n")
        file.seek(0)
        return len(file.readlines())
at = number()
plan = open(folder + "/plan").read().split() if os.path.exists(folder + "/plan") else []
if plan and int(plan[1]) == at and plan[0] == "before":
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(1)
if os.path.exists(folder + "/offline"):
    sys.exit("Error: failed to connect: dial tcp: lookup api.machines.dev: no such host")
done = subprocess.run([sys.executable, "-m", "deploy.local.fly", *sys.argv[1:]])
if plan and int(plan[1]) == at and plan[0] == "after":
    os.kill(os.getppid(), signal.SIGKILL)
sys.exit(done.returncode)
"""


HASHES = (
    "cd /mnt; find . -path ./.swarm -prune -o -path ./.home -prune -o -type f -print "
    "| sort | xargs -d'\\n' sha256sum"
)


class Laptop:
    """A home with a key, a flyctl, and the swarm command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.platform = folder / "platform"
        self.ssh_folder = folder / "ssh"
        self.ssh_folder.mkdir(parents=True)
        self.key = make_key(self.ssh_folder / "id_ed25519")
        fly = folder / "bin" / "fly"
        fly.parent.mkdir()
        fly.write_text(FLY.format(python=sys.executable, folder=str(folder)))
        fly.chmod(0o755)
        self.environ = {
            "PATH": f"{fly.parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "USER": "ann",
            "SWARM_LOCAL": str(self.platform),
            "SWARM_HOME": str(folder / "config"),
            "SWARM_SSH_CONFIG": str(self.ssh_folder / "config"),
        }

    def swarm(self, *words: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [SWARM, *words],
            env=self.environ,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=self.folder,
        )

    def well(self, *words: str, given: str = "") -> str:
        """It works; what it says."""
        result = self.swarm(*words, given=given)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def fails(self, *words: str, given: str = "") -> str:
        """It says what is wrong, with an exit status, and no traceback."""
        result = self.swarm(*words, given=given)
        assert result.returncode not in (0, -9), result.stdout
        assert "Traceback" not in result.stderr
        return result.stderr

    def ssh(self, name: str, script: str) -> str:
        """What people type, with their own configuration."""
        config = str(self.ssh_folder / "config")
        result = subprocess.run(
            ["ssh", "-F", config, "-o", "BatchMode=yes", name, script],
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
            timeout=90,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def state(self, name: str) -> str:
        said = subprocess.run(
            [f"{self.folder}/bin/fly", "machine", "list", "--app", name, "--json"],
            env=self.environ,
            capture_output=True,
            text=True,
            check=True,
        )
        machines: list[dict[str, Any]] = json.loads(said.stdout)
        return str(machines[0]["state"]) if machines else "none"

    def change(self, **values: object) -> None:
        """Change the platform itself."""
        with store.opened(self.platform) as platform:
            for name, value in values.items():
                setattr(platform, name, value)

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def down(self) -> None:
        with store.opened(self.platform) as platform:
            names = list(platform.apps)
        for name in names:
            self.change(account="you@this-computer")
            subprocess.run(
                [sys.executable, "-m", "deploy.local.fly", "apps", "destroy", name, "--yes"],
                env=self.environ,
                capture_output=True,
                check=False,
            )


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    made = Laptop(tmp_path / "laptop")
    yield made
    made.down()


def test_from_nothing_to_work_to_sleep_to_nothing_and_back(laptop: Laptop) -> None:
    (laptop.folder / "env").write_text(
        "ANTHROPIC_API_KEY='sk-1 2'\n# none\nexport GITHUB_TOKEN=g\n"
    )
    said = laptop.well("up", "box", "--yes", "--env-file", "env")
    assert "ssh box" in said
    assert "vscode-remote/ssh-remote+box" in said
    assert "sk-1" not in said
    assert not [call for call in laptop.calls if "sk-1" in call]
    assert laptop.ssh("box", "echo $ANTHROPIC_API_KEY $GITHUB_TOKEN") == "sk-1 2 g\n"

    # Work: files of all kinds.
    laptop.ssh(
        "box",
        "cd /mnt; mkdir -p 'a b/c'; head -c 3000000 /dev/urandom >'a b/c/big'; ln -s c 'a b/l'",
    )
    laptop.ssh("box", "cd /mnt; echo h >h1; ln h1 h2; touch $'Icon\\r' $'b\\xe9'")
    laptop.ssh("box", "cd /mnt; printf '#!/bin/sh\\necho runs\\n' >run; chmod +x run; touch empty")
    before = laptop.ssh(
        "box",
        HASHES,
    )

    # Asleep, seen without being woken, and awake by ssh.
    laptop.well("sleep", "box")
    until(lambda: laptop.state("box") in ("stopped", "suspended"), "asleep")
    assert "box is s" in laptop.well("status", "box")
    assert "cost so far" in laptop.well("status", "box")
    assert laptop.state("box") != "started"
    assert laptop.ssh("box", "/mnt/run") == "runs\n"
    assert laptop.state("box") == "started"

    assert "every file compared" in laptop.well("backup", "box")
    [archive] = (laptop.folder / "backups").glob("*.tar.gz")
    assert archive.stat().st_mode & 0o077 == 0
    assert "nothing was destroyed" in laptop.fails("down", "box", "--no-backup", given="bix\n")
    laptop.well("down", "box", "--to", "last", given="box\n")
    assert list((laptop.folder / "last").glob("*.tar.gz"))
    assert "no machine yet" in laptop.well("list")

    # Another machine with another host key: strict checking knows it at once.
    laptop.well("up", "box", "--yes")
    assert "files are as they were" in laptop.well("restore", "box", str(archive))
    after = laptop.ssh(
        "box",
        HASHES,
    )
    assert after == before
    assert laptop.ssh("box", "readlink '/mnt/a b/l'; /mnt/run") == "c\nruns\n"


def test_interrupted_at_every_step_the_second_run_completes(laptop: Laptop) -> None:
    """SIGKILL before and after each command of flyctl; nothing is made twice."""
    laptop.well("up", "whole", "--yes")
    steps = len(laptop.calls)
    assert steps > 8
    laptop.well("down", "whole", "--no-backup", given="whole\n")
    for when in ("before", "after"):
        for step in range(1, steps + 1):
            name = f"box-{when}-{step}"
            (laptop.folder / "calls").unlink()
            (laptop.folder / "plan").write_text(f"{when} {step}")
            assert laptop.swarm("up", name, "--yes").returncode == -9
            (laptop.folder / "plan").unlink()
            laptop.well("up", name, "--yes")
            assert laptop.ssh(name, "echo in") == "in\n"
            with store.opened(laptop.platform) as platform:
                app = platform.apps[name]
            assert (len(app.volumes), len(app.addresses)) == (1, 1)
            laptop.well("down", name, "--no-backup", given=f"{name}\n")


def test_a_second_run_changes_only_what_differs(laptop: Laptop) -> None:
    laptop.well("up", "box", "--yes")
    changing = ("create", "allocate", "import", "deploy", "start", "update")
    before = len(laptop.calls)
    assert "nothing to deploy" in laptop.well("up", "box")
    assert not [c for c in laptop.calls[before:] if any(word in c for word in changing)]
    (laptop.folder / "env").write_text("GH_TOKEN=new\n")
    before = len(laptop.calls)
    laptop.well("up", "box", "--env-file", "env")
    changed = [c for c in laptop.calls[before:] if any(word in c for word in changing)]
    assert [call.split()[0] for call in changed] == ["secrets", "deploy"]
    assert laptop.ssh("box", "echo $GH_TOKEN") == "new\n"


def test_a_dry_run_shows_the_commands_and_does_nothing(laptop: Laptop) -> None:
    said = laptop.well("up", "box", "--dry-run")
    for command in (
        "fly apps create box",
        "fly volumes create",
        "fly ips allocate-v4",
        "fly deploy",
    ):
        assert command in said
    assert not [call for call in laptop.calls if call.split()[1] in ("create", "import")]
    assert "no machine yet" in laptop.well("list")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"account": ""}, "log in: fly auth login"),
        ({"taken": ["box"]}, "choose another name"),
        ({"most_apps": 0}, "limits and payment"),
        ({"regions": ("iad",)}, "fly platform regions lists them"),
    ],
)
def test_what_the_platform_refuses_is_explained_and_can_be_finished(
    laptop: Laptop, change: dict[str, object], says: str
) -> None:
    laptop.change(**change)
    assert says in laptop.fails("up", "box", "--yes")
    laptop.change(account="you@this-computer", taken=[], most_apps=9, regions=("ams",))
    laptop.well("up", "box", "--yes")
    assert laptop.ssh("box", "echo in") == "in\n"


def test_what_is_wrong_on_the_laptop_is_explained(laptop: Laptop) -> None:
    assert "small letters" in laptop.fails("up", "Bad_Name")
    assert "does not know" in laptop.fails("status", "nobody")
    (laptop.folder / "env").write_text("A=1\nthe secret line\n")
    said = laptop.fails("up", "box", "--yes", "--env-file", "env")
    assert "line 2: expected NAME=VALUE" in said
    assert "secret line" not in said
    assert "private key" in laptop.fails("up", "box", "--yes", "--key", str(laptop.key.path))
    assert "dedicated address" in laptop.fails("up", "box", given="n\n")
    (laptop.folder / "offline").touch()
    assert "is the network there?" in laptop.fails("up", "box", "--yes")
    (laptop.folder / "offline").unlink()
    fly = laptop.folder / "bin" / "fly"
    whole = fly.read_text()
    fly.write_text('#!/bin/sh\necho \'{"Version": "v0.1.2"}\'\n')
    assert "too old" in laptop.fails("up", "box", "--yes")
    fly.unlink()
    laptop.environ["PATH"] = "/usr/bin:/bin"
    assert "flyctl is not installed" in laptop.fails("up", "box", "--yes")
    fly.write_text(whole)
    fly.chmod(0o755)


def test_another_app_of_the_account_is_not_deployed_over(laptop: Laptop) -> None:
    laptop.well("up", "box", "--yes")
    subprocess.run(["rm", "-r", str(laptop.folder / "config")], check=True)
    with store.opened(laptop.platform) as platform:
        platform.apps["box"].volumes[0].name = "pg_data"
    assert "another app of yours" in laptop.fails("up", "box", "--yes")
    with store.opened(laptop.platform) as platform:
        platform.apps["box"].volumes[0].name = "workspace"
    laptop.well("up", "box", "--yes")  # a second laptop of its owner


def test_a_volume_in_another_region_is_kept_and_told(laptop: Laptop) -> None:
    laptop.well("up", "box", "--yes", "--region", "fra")
    said = laptop.fails("up", "box", "--yes", "--region", "iad")
    assert "is in fra, not in iad" in said
    assert laptop.ssh("box", "echo in") == "in\n"


def test_keys_secrets_resize_snapshot_and_audit(laptop: Laptop, tmp_path: Path) -> None:
    laptop.well("up", "box", "--yes")
    bob = make_key(tmp_path / "bob")
    assert "last key" in laptop.fails("keys", "remove", "box", "ann")
    laptop.well("keys", "add", "box", f"{bob.path}.pub", "--person", "bob")
    assert laptop.well("keys", "list", "box").split()[0] == "ann"
    assert "bob" in laptop.well("keys", "list", "box")
    # Without --person it would replace one's own: that is asked first.
    assert laptop.swarm("keys", "add", "box", f"{bob.path}.pub", given="n\n").returncode != 0
    (laptop.folder / "no.pub").write_text("not a key\n")
    assert "no usable key" in laptop.fails("keys", "add", "box", "no.pub", "--person", "x")
    config = str(laptop.ssh_folder / "config")
    as_bob = [
        "ssh",
        "-F",
        config,
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "IdentityFile=none",
        "-i",
        str(bob.path),
        "-o",
        "BatchMode=yes",
        "box",
        "echo in",
    ]
    result = subprocess.run(as_bob, capture_output=True, text=True, check=False)
    assert result.stdout == "in\n", result.stderr
    laptop.well("keys", "remove", "box", "bob")
    assert "bob" not in laptop.well("keys", "list", "box")

    (laptop.folder / "env").write_text("GH_TOKEN=t\n")
    laptop.well("secrets", "set", "box", "env")
    assert "GH_TOKEN" in laptop.well("secrets", "list", "box")
    assert laptop.ssh("box", "echo $GH_TOKEN") == "t\n"
    laptop.well("secrets", "unset", "box", "GH_TOKEN")
    assert laptop.ssh("box", "echo $GH_TOKEN") == "\n"

    assert "stops and starts" in laptop.well(
        "resize", "box", "shared-cpu-4x", "--memory", "4", "--yes"
    )
    assert "shared-cpu-4x with 4 GB" in laptop.well("status", "box")

    laptop.ssh("box", "echo kept >/mnt/kept; sync")
    laptop.well("backup", "box", "--snapshot")
    said = laptop.well("audit", "box")
    assert "sshd takes keys only, no root, no passwords" in said
    assert "fail" not in said
    assert "pass  ssh box gets in" in laptop.well("doctor", "box")


def test_sync_never_deletes_without_asking(laptop: Laptop) -> None:
    laptop.well("up", "box", "--yes")
    work = laptop.folder / "work"
    work.mkdir()
    (work / "one").write_text("1")
    laptop.well("sync", "push", "box", "work")
    assert laptop.ssh("box", "ls /mnt/work") == "one\n"
    laptop.ssh("box", "echo 2 >/mnt/work/two")
    laptop.well("sync", "push", "box", "work")
    assert laptop.ssh("box", "ls /mnt/work") == "one\ntwo\n"
    assert laptop.swarm("sync", "push", "box", "work", "--delete", given="n\n").returncode != 0
    assert laptop.ssh("box", "ls /mnt/work") == "one\ntwo\n"
    laptop.well("sync", "pull", "box", "work")
    assert (work / "two").read_text() == "2\n"
    (work / "two").unlink()
    laptop.well("sync", "push", "box", "work", "--delete", given="y\n")
    assert laptop.ssh("box", "ls /mnt/work") == "one\n"


def test_several_machines_and_no_account(laptop: Laptop) -> None:
    for name in ("one", "two"):
        laptop.well("up", name, "--local", "--yes")
    assert laptop.ssh("one", "hostname") == laptop.ssh("two", "hostname")
    listed = laptop.well("list").splitlines()
    assert [line.split()[0] for line in listed[1:]] == ["one", "two"]
    assert "2 done, 0 failed" in laptop.well("status", "--all")
    said = laptop.well("sleep", "--all")
    assert "2 done" in said
    until(lambda: laptop.state("one") != "started", "asleep")
    laptop.well("wake", "one")
    assert laptop.state("one") == "started"


def test_flags_that_flyctl_does_not_have_are_refused(laptop: Laptop) -> None:
    """The negative control: the stand-in is as strict as the published reference."""
    fly = [sys.executable, "-m", "deploy.local.fly"]
    for words in (
        ["apps", "create", "x", "--colour", "red"],
        ["apps", "paint"],
        ["deploy", "--ha"],
    ):
        done = subprocess.run([*fly, *words], env=laptop.environ, capture_output=True, text=True)
        assert done.returncode == 1
        assert "unknown" in done.stderr or "missing an app" in done.stderr or done.stderr
