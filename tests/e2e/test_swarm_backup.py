"""`swarm backup` and `restore`: with restic on the laptop, and without."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.laptop import SWARM, Laptop
from tests.support import until

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

HASHES = "cd /mnt && find . -path ./.swarm -prune -o -type f -exec sha256sum {} + | sort"


CUT_OFF = """\
#!/bin/sh
case "$*" in
*"tar --null"*) /usr/bin/ssh "$@" | head -c 99999; exit 255 ;;
*) exec /usr/bin/ssh "$@" ;;
esac
"""


SLOW = """\
#!/bin/sh
case "$*" in
*" backup "*)
    echo begins >>'{log}'
    sleep 2
    {program} "$@"
    status=$?
    echo ends >>'{log}'
    exit $status ;;
*) exec {program} "$@" ;;
esac
"""
"""A restic that tells when it writes, and takes its time."""


def restic(laptop: Laptop, *words: str) -> "subprocess.CompletedProcess[str]":
    folder = laptop.folder / "backups"
    where = {
        "RESTIC_REPOSITORY": f"{folder}/restic",
        "RESTIC_PASSWORD_FILE": f"{folder}/restic.key",
    }
    return subprocess.run(
        ["restic", "--no-cache", *words],
        env=os.environ | where,
        capture_output=True,
        text=True,
        check=False,
    )


def without_restic(laptop: Laptop) -> None:
    """A laptop whose PATH has everything but restic."""
    folder = laptop.folder / "everything-else"
    folder.mkdir()
    for place in ("/bin", "/usr/bin", "/usr/sbin"):
        for program in Path(place).iterdir():
            link = folder / program.name
            if program.name != "restic" and not link.is_symlink():
                link.symlink_to(program)
    laptop.environ["PATH"] = f"{laptop.fly_path.parent}:{folder}"


def test_backups_with_restic_add_only_what_changed(laptop: Laptop) -> None:
    laptop.up("box")
    laptop.ssh("box", "cd /mnt; mkdir 'a b'; head -c 30000000 /dev/urandom >'a b/big'; ln -s x l")
    laptop.ssh("box", "cd /mnt; touch $'b\\xe9'; printf '#!/bin/sh\\n' >run; chmod 750 run")
    before = laptop.ssh("box", HASHES)
    said = laptop.well("backup", "box")
    assert "every file compared" in said
    first = said.split()[0]
    size = sum(file.stat().st_size for file in (laptop.folder / "backups").rglob("*"))
    laptop.ssh("box", "cd /mnt; echo new >'a b/new'; rm run")
    laptop.well("backup", "box")
    added = sum(file.stat().st_size for file in (laptop.folder / "backups").rglob("*")) - size
    assert added < 8 << 20, "the big file is not kept twice"
    for path in (laptop.folder / "backups").glob("restic*"):
        assert path.stat().st_mode & 0o077 == 0
    assert restic(laptop, "check", "--read-data").returncode == 0

    laptop.ssh("box", "cd /mnt; rm -r 'a b' l; echo worse >run")
    said = laptop.well("restore", "box", first, "--yes")
    assert "restored, every file compared" in said
    assert laptop.ssh("box", HASHES) == before
    assert laptop.ssh("box", "readlink /mnt/l; stat -c %a /mnt/run") == "x\n750\n"
    # Another machine gets this one's latest backup.
    laptop.well("restore", "box", "latest", "--of", "box", "--yes")
    assert laptop.ssh("box", "cat '/mnt/a b/new'") == "new\n"


def test_a_backup_that_is_cut_off_is_not_kept(laptop: Laptop) -> None:
    laptop.up("box")
    laptop.ssh("box", "head -c 3000000 /dev/urandom >/mnt/big")
    laptop.well("backup", "box")
    # The connection ends in the middle of the stream.
    ssh = laptop.fly_path.parent / "ssh"
    ssh.write_text(CUT_OFF)
    ssh.chmod(0o755)
    assert "ended with status 255" in laptop.fails("backup", "box")
    ssh.unlink()
    assert restic(laptop, "snapshots").stdout.count("volume.tar") == 1


def test_without_restic_a_verified_archive_is_written(laptop: Laptop) -> None:
    laptop.up("box")
    laptop.ssh("box", "echo precious >/mnt/a")
    without_restic(laptop)
    said = laptop.well("backup", "box")
    assert ".tar.gz" in said
    [archive] = (laptop.folder / "backups").glob("*.tar.gz")
    laptop.ssh("box", "rm /mnt/a")
    assert "restored, every file compared" in laptop.well("restore", "box", str(archive), "--yes")
    assert laptop.ssh("box", "cat /mnt/a") == "precious\n"
    (laptop.folder / "backups" / "restic").mkdir()
    assert "restic, which is not installed" in laptop.fails("restore", "box", "latest", "--yes")


PASSWORD = "of the owner"


@pytest.fixture
def away() -> Iterator[Path]:
    """A folder for the other repository, visible to every machine here."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def notes_in(repo: Path) -> list[str]:
    """The notes of the checkpoints in the repository."""
    done = subprocess.run(
        ["restic", "--no-cache", "--no-lock", "-r", str(repo), "snapshots", "--json"],
        env=os.environ | {"RESTIC_PASSWORD": PASSWORD},
        capture_output=True,
        check=True,
    )
    return [" ".join(each["tags"]) for each in json.loads(done.stdout)]


@pytest.mark.long
@pytest.mark.parametrize("waits", [True, False])
def test_down_offers_to_wait_for_the_last_upload(laptop: Laptop, away: Path, waits: bool) -> None:
    """The other repository cannot be written until the question is answered."""
    env = f"SWARM_CHECKPOINT_REPO={away}/repo\nCHECKPOINT_PASSWORD={PASSWORD}\n"
    (laptop.folder / "env").write_text(env)
    laptop.up("box", "--env-file", "env")
    assert PASSWORD not in laptop.ssh("box", "env")
    laptop.ssh("box", "echo precious >/mnt/a; swarm-agent checkpoint --note first")

    def pending() -> bool:
        return bool(
            json.loads(laptop.ssh("box", "swarm-agent checkpoints --json"))["upload_problem"]
        )

    until(pending, "an upload that failed")
    ending = subprocess.Popen(
        [SWARM, "down", "box"],
        env=laptop.environ,
        cwd=laptop.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ending.stdin is not None
    assert ending.stdout is not None
    ending.stdin.write("box\n")
    ending.stdin.flush()
    asked, said = f"wait until a last checkpoint is at {away}/repo? [Y/n]:", ""
    while asked not in said:
        said += ending.stdout.read(1)
        assert ending.poll() is None, said
    assert laptop.state("box") == "started"
    if waits:  # before the last checkpoint: an upload that fails is repeated a minute later
        away.chmod(0o777)
    said += ending.communicate("y\n" if waits else "n\n")[0]
    assert ending.returncode == 0, said
    assert "box is gone" in said
    assert (f"copied: {away}/repo" in said) is waits
    assert "box" not in laptop.standing().records.apps
    assert (away / "repo").exists() is waits
    if waits:
        assert any("destroyed" in note for note in notes_in(away / "repo")), notes_in(away / "repo")


def test_backups_at_once_share_one_repository(laptop: Laptop) -> None:
    """From two terminals, the first time: one creates it, and they write one after the other."""
    laptop.up("box")
    slow, log = laptop.fly_path.with_name("restic"), laptop.folder / "written"
    slow.write_text(SLOW.format(log=log, program=shutil.which("restic")))
    slow.chmod(0o755)
    command = [SWARM, "backup", "box"]
    both = [
        subprocess.Popen(
            command, env=laptop.environ, cwd=laptop.folder, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for each in both:
        said, _ = each.communicate(timeout=180)
        assert each.returncode == 0
        assert "every file compared" in said
    assert log.read_text().split() == ["begins", "ends"] * 2
    assert len(json.loads(restic(laptop, "snapshots", "--json").stdout)) == 2
