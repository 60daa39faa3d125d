"""`swarm backup` and `restore`: with restic on the laptop, and without."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.laptop import Laptop

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

HASHES = "cd /mnt && find . -path ./.swarm -prune -o -type f -exec sha256sum {} + | sort"


CUT_OFF = """\
#!/bin/sh
case "$*" in
*"tar --null"*) /usr/bin/ssh "$@" | head -c 99999; exit 255 ;;
*) exec /usr/bin/ssh "$@" ;;
esac
"""


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
    assert "files are as they were" in said
    assert laptop.ssh("box", HASHES) == before
    assert laptop.ssh("box", "readlink /mnt/l; stat -c %a /mnt/run") == "x\n750\n"
    # Another machine gets the latest of this one.
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
    assert "files are as they were" in laptop.well("restore", "box", str(archive), "--yes")
    assert laptop.ssh("box", "cat /mnt/a") == "precious\n"
    (laptop.folder / "backups" / "restic").mkdir()
    assert "restic, which is not installed" in laptop.fails("restore", "box", "latest", "--yes")
