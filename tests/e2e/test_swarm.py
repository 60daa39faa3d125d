"""The laptop's command, from nothing to a working machine and back, with real ssh.

flyctl is the small one of deploy/local, or the real one (SWARM_FLYCTL); both talk to the stand-in
for Fly's API, whose machines run on this computer.
"""

import re
import subprocess
from pathlib import Path

import pytest

from deploy.local.store import AS_USUAL
from tests.laptop import REAL, SWARM, Laptop
from tests.support import make_key, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(1500)]

HASHES = (
    "cd /mnt; find . -path ./.swarm -prune -o -path ./.home -prune -o -type f -print "
    "| sort | xargs -d'\\n' sha256sum"
)
ASLEEP = ("stopped", "suspended")


def test_from_nothing_to_work_to_sleep_to_nothing_and_back(laptop: Laptop) -> None:
    (laptop.folder / "env").write_text(
        "ANTHROPIC_API_KEY='sk-1 #2'\n# none\nexport GITHUB_TOKEN=g  # mine\nMY_OWN=\"a b\"\n"
    )
    said = laptop.up("box", "--env-file", "env")
    assert "ssh box" in said
    assert "vscode-remote/ssh-remote+box" in said
    assert "sk-1" not in said
    assert not [call for call in laptop.calls if "sk-1" in call]
    assert laptop.ssh("box", "echo $ANTHROPIC_API_KEY $GITHUB_TOKEN $MY_OWN") == "sk-1 #2 g a b\n"
    [volume] = laptop.volumes("box")
    assert volume.snapshot_retention == 14

    # Work: files of all kinds.
    laptop.ssh(
        "box",
        "cd /mnt; mkdir -p 'a b/c'; head -c 3000000 /dev/urandom >'a b/c/big'; ln -s c 'a b/l'",
    )
    laptop.ssh("box", "cd /mnt; echo h >h1; ln h1 h2; touch $'Icon\\r' $'b\\xe9'")
    laptop.ssh("box", "cd /mnt; printf '#!/bin/sh\\necho runs\\n' >run; chmod +x run; touch empty")
    before = laptop.ssh("box", HASHES)

    # Asleep, seen without being woken, and woken by ssh.
    assert "asleep" in laptop.well("sleep", "box")
    assert laptop.state("box") in ASLEEP
    said = laptop.well("status", "box")
    assert "box is asleep" in said
    assert "cost so far" in said
    assert laptop.state("box") in ASLEEP
    assert laptop.ssh("box", "/mnt/run") == "runs\n"
    assert laptop.state("box") == "started"

    assert "every file compared" in laptop.well("backup", "box", "--archive")
    [archive] = (laptop.folder / "backups").glob("*.tar.gz")
    assert archive.stat().st_mode & 0o077 == 0
    assert "nothing was destroyed" in laptop.fails("down", "box", "--no-backup", given="bix\n")
    said = laptop.well("down", "box", "--to", "last", given="box\n")
    assert volume.id in said
    assert "box is gone" in said
    assert (laptop.folder / "last" / "restic" / "config").exists()
    assert "no machine yet" in laptop.well("list")

    # Another machine with another host key: strict checking notices it at once.
    laptop.up("box")
    assert "restored, every file compared" in laptop.well("restore", "box", str(archive))
    assert laptop.ssh("box", HASHES) == before
    assert laptop.ssh("box", "readlink '/mnt/a b/l'; /mnt/run") == "c\nruns\n"


@pytest.mark.attack
@pytest.mark.parametrize("kept", ["", "another"])
def test_whoever_has_another_host_key_is_refused(laptop: Laptop, kept: str) -> None:
    """Even at the first login, when only the key from the platform is known."""
    laptop.up("box")
    assert laptop.ssh("box", "echo in") == "in\n"
    [known] = (laptop.folder / "config").rglob("known_hosts")
    other = make_key(laptop.folder / "other").public
    known.write_text(f"swarm-box {other}\n" if kept else "")
    with pytest.raises(AssertionError, match="Host key verification failed"):
        laptop.ssh("box", "echo in")
    assert known.read_text() == (f"swarm-box {other}\n" if kept else "")


def test_a_second_run_changes_only_what_differs(laptop: Laptop) -> None:
    laptop.up("box")
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


def test_a_dry_run_changes_nothing_with_and_without_flyctl(laptop: Laptop) -> None:
    for file in laptop.ssh_folder.iterdir():
        file.unlink()
    image = ("--image", "registry.example/swarm:1")
    for flyctl in (True, False):
        if not flyctl:
            laptop.fly_path.unlink()
        said = laptop.well("up", "box", "--dry-run", *image)
        for command in (
            "fly apps create box",
            "fly volumes create",
            "fly ips allocate-v4",
            "fly deploy",
        ):
            assert command in said
    assert not [call for call in laptop.calls if call.split()[1] in ("create", "import")]
    assert not list(laptop.ssh_folder.iterdir())
    assert not (laptop.folder / "config").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"account": ""}, "log in: fly auth login"),
        ({"taken": ["box"]}, "choose another name"),
        ({"most_apps": 0}, "limits and payment"),
        ({"hosts": [{"name": "h", "region": "iad"}]}, "there is no region ams: iad"),
        ({"hosts": [{"name": "h", "region": "ams", "free_mb": 1024}]}, "no room for shared-cpu-2x"),
        ({"organizations": [{"slug": "a", "name": "A", "type": "SHARED"}]}, "swarm up --org ORG"),
        ({"organizations": []}, "fly orgs list"),
        ({"images": ["other"]}, "is the image's name right"),
        ({"fail": [0, 0, 0, 0, 0, 0]}, "is the network up?"),
    ],
    ids=["login", "name", "limit", "region", "room", "organisation", "nobody", "image", "network"],
)
def test_what_the_platform_refuses_is_explained_and_can_be_finished(
    laptop: Laptop, change: dict[str, object], says: str
) -> None:
    healthy = {
        "account": "you@this-computer",
        "taken": [],
        "most_apps": 9,
        "hosts": [{"name": each, "region": "ams"} for each in ("h", "host-ams")],
        "organizations": [{"slug": "personal", "name": "You"}],
        "images": [],
        "fail": [],
    }
    laptop.change(**change)
    assert says in laptop.fails("up", "box", "--yes", "--image", "registry.example/swarm:1")
    laptop.change(**healthy)
    if "organizations" not in change:
        laptop.up("box")
        assert laptop.ssh("box", "echo in") == "in\n"


@pytest.mark.parametrize(
    ("status", "says"),
    [(500, "status.flyio.net"), (200, "status.flyio.net"), (0, "is the network up?")],
    ids=["error", "rubbish", "cut"],
)
def test_an_api_that_fails_half_way_is_explained_and_the_next_run_completes(
    laptop: Laptop, status: int, says: str
) -> None:
    for good in (8, 16):  # after the app, and after the volume
        laptop.change(fail=[*[AS_USUAL] * good, *[status] * 50])
        assert says in laptop.fails("up", "box", "--yes", "--image", "registry.example/swarm:1")
    laptop.change(fail=[])
    laptop.up("box")
    assert laptop.ssh("box", "echo in") == "in\n"
    assert (len(laptop.volumes("box")), len(laptop.app("box").addresses)) == (1, 1)


def test_a_rate_limit_is_waited_for_and_reported(laptop: Laptop) -> None:
    laptop.change(fail=[429])
    done = laptop.swarm("up", "box", "--yes", "--image", "registry.example/swarm:1")
    assert done.returncode == 0, done.stderr
    assert "the API's rate limit is reached: again in 1 s" in done.stderr


def test_a_build_is_shown_as_it_happens_and_ends_in_the_reason(laptop: Laptop) -> None:
    """On a terminal; the stand-in has no builder, so every build fails."""
    environ = laptop.environ | {"TERM": "xterm", "COLUMNS": "200"}
    words = ["script", "-qec", f"{SWARM} up box --yes", "/dev/null"]
    shown = subprocess.run(
        words, env=environ, cwd=laptop.folder, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 1
    before, _, after = shown.stdout.partition("==> Building image")
    assert "Error:" not in before
    assert re.search(r"\d s  Waiting for depot builder", after)
    assert re.search(r"Error: fly deploy \S+: .*builds no images", after)
    assert "without a build: swarm up NAME --image REF" in after
    # Without a terminal there is no progress display, but the same error.
    said = laptop.fails("up", "box", "--yes")
    assert "builds no images" in said
    assert "\x1b" not in said
    laptop.up("box")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--size", "nonsense"), "there is no size nonsense: shared-cpu-1x"),
        (("--memory", "64"), "takes 0.5 GB to 4 GB of memory, not 64 GB"),
        (("--region", "mars"), "mars is not a region"),
        (("--region", "zzz"), "there is no region zzz: ams"),
        (("--volume", "0"), "a volume has 1 to 500 GB"),
        (("--env-file", "missing"), "missing: No such file"),
        (("--env-file", "bad"), "bad line 2: expected NAME=VALUE"),
        (("--env-file", "settings"), "SWARM_IDLE_TIMEOUT"),
        (("--env-file", "nul"), "secret A cannot be given to the platform: it has a NUL byte"),
    ],
)
def test_a_wish_that_cannot_be_had_costs_nothing_and_is_forgotten(
    laptop: Laptop, words: tuple[str, ...], says: str
) -> None:
    (laptop.folder / "bad").write_text("A=1\nthe secret line\n")
    (laptop.folder / "settings").write_text("SWARM_IDLE_TIMEOUT=soon\n")
    (laptop.folder / "nul").write_bytes(b"A='x\0y'\n")
    said = laptop.fails("up", "box", "--yes", "--image", "i", *words)
    assert says in said
    assert "secret line" not in said
    assert not laptop.standing().records.apps
    assert "no machine yet" in laptop.well("list")


@pytest.mark.long
def test_a_machine_that_dies_at_boot_shows_its_last_words(laptop: Laptop) -> None:
    """Only the machine itself can report it: its settings are good, its image lacks a program."""
    (laptop.folder / "env").write_text("SWARM_SSHD=/usr/sbin/no-sshd\n")
    said = laptop.fails("up", "box", "--yes", "--image", "i", "--env-file", "env")
    assert "the machine exited at its start" in said
    assert "cannot run /usr/sbin/no-sshd" in said


def test_what_is_wrong_on_the_laptop_is_explained(laptop: Laptop) -> None:
    image = ("--image", "registry.example/swarm:1")
    assert "small letters" in laptop.fails("up", "Bad_Name")
    assert "does not know" in laptop.fails("status", "nobody")
    assert "private key" in laptop.fails("up", "box", "--yes", "--key", str(laptop.key.path))
    assert "dedicated address" in laptop.fails("up", "box", *image, given="n\n")
    whole = laptop.fly_path.read_text()
    laptop.fly_path.write_text('#!/bin/sh\necho \'{"Version": "v0.1.2"}\'\n')
    assert "too old" in laptop.fails("up", "box", "--yes", *image)
    laptop.fly_path.unlink()
    laptop.environ["PATH"] = "/usr/bin:/bin"
    assert "flyctl is not installed" in laptop.fails("up", "box", "--yes", *image)
    laptop.environ["SWARM_FLYCTL"] = "/nowhere"
    assert "there is no such program" in laptop.fails("up", "box", "--yes", *image)
    laptop.fly_path.write_text(whole)
    laptop.fly_path.chmod(0o755)


def test_another_app_of_the_account_is_not_deployed_over(laptop: Laptop) -> None:
    laptop.fly("apps", "create", "box", "--yes")
    words = ["volumes", "create", "pg_data", "--app", "box", "--region", "ams", "--yes"]
    assert laptop.fly(*words).returncode == 0
    config = laptop.folder / "fly.toml"
    config.write_text(
        'app = "box"\nprimary_region = "ams"\n[[mounts]]\nsource = "pg_data"\ndestination = "/d"\n'
    )
    words = ["deploy", "--app", "box", "--config", str(config), "--image", "i", "--ha=false"]
    done = laptop.fly(*words, "--yes", "--detach", "--smoke-checks=false", "--dns-checks=false")
    assert done.returncode == 0, done.stderr
    said = laptop.fails("up", "box", "--yes", "--image", "i")
    assert "another app of yours" in said


def test_a_second_laptop_of_its_owner(laptop: Laptop) -> None:
    laptop.up("box")
    subprocess.run(["rm", "-r", str(laptop.folder / "config")], check=True)
    laptop.up("box")
    assert laptop.ssh("box", "echo in") == "in\n"


def test_a_volume_in_another_region_is_kept_and_told(laptop: Laptop) -> None:
    laptop.up("box", "--region", "fra")
    said = laptop.fails("up", "box", "--yes", "--region", "iad")
    assert "is in fra, not in iad" in said
    assert "swarm move box --region iad" in said


def test_paths_with_spaces_links_and_bytes(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path / "a home")
    try:
        real = laptop.folder / "dotfiles"
        real.write_bytes(b"# caf\xe9\nHost other\n  Port 1\n")
        config = laptop.ssh_folder / "config"
        config.symlink_to(real)
        laptop.environ["SWARM_HOME"] = "my config"  # relative, and a space
        laptop.up("box")
        assert config.is_symlink()
        assert b"caf\xe9" in real.read_bytes()
        assert laptop.ssh("box", "echo in") == "in\n"
    finally:
        laptop.down()


def test_sync_never_deletes_without_asking(laptop: Laptop) -> None:
    laptop.up("box")
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


@pytest.mark.long
def test_several_machines_and_no_account(laptop: Laptop) -> None:
    for name in ("FLY_API_TOKEN", "FLY_API_BASE_URL", "FLY_FLAPS_BASE_URL", "FLY_UIEX_BASE_URL"):
        del laptop.environ[name]
    if REAL:
        laptop.environ["SWARM_FLYCTL"] = str(laptop.fly_path)
    for name in ("one", "two"):
        laptop.well("up", name, "--local", "--yes")
    listed = laptop.well("list").splitlines()
    assert [line.split()[0] for line in listed[1:]] == ["one", "two"]
    assert "2 done, 0 failed" in laptop.well("status", "--all")
    assert "2 done" in laptop.well("sleep", "--all")
    until(lambda: laptop.state("one") in ASLEEP, "asleep")
    laptop.well("wake", "one")
    assert laptop.state("one") == "started"
