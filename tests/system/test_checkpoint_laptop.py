"""The machine is gone, and a new one gets its work through the laptop's command."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.swarm import checkpoints
from deploy.swarm.place import Place
from tests.conftest import BoxMaker
from tests.support import Box, ready

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture
def away() -> Iterator[Path]:
    """A folder that the machine's account can write, visible to every machine."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def known(box: Box, name: str) -> Place:
    """The laptop's record of a machine."""
    where = Place(name)
    where.ssh_config.parent.mkdir(parents=True)
    options = [word.removeprefix("-o").replace("=", " ", 1) for word in box.ssh_options()[2:]]
    lines = [f"Host {name}", "HostName 127.0.0.1", f"User {box.user}", *options]
    where.ssh_config.write_text("\n".join(lines) + "\n")
    return where


def test_a_new_machine_has_the_work_of_the_one_that_is_gone(
    away: Path, make_box: BoxMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "PATIENCE", 60.0)
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "laptop"))
    settings = {"SWARM_CHECKPOINT_REPO": f"{away}/repo", "CHECKPOINT_PASSWORD": "the owner's"}
    old = ready(make_box().boot(settings))
    assert old.ssh("mkdir /mnt/work; cd /mnt/work; echo precious >a; ln -s a b").returncode == 0
    where = known(old, "old")
    assert checkpoints.report(where).away == f"{away}/repo"
    checkpoints.copy_away(where)
    assert not checkpoints.report(where).upload_pending
    old.machine.kill()
    shutil.rmtree(old.folder)

    new = ready(make_box().boot(settings))
    said = checkpoints.restore(known(new, "new"), "latest")
    assert "restored" in said
    assert new.ssh("cd /mnt/work && cat a && readlink b").stdout == "precious\na\n"
    with pytest.raises(checkpoints.CheckpointError, match="is not a checkpoint ID"):
        checkpoints.restore(where, "latest; reboot")
    assert os.listdir(away) == ["repo"]
