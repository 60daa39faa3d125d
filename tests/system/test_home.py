"""The volume and the home: what people keep outlives the machine, and leads root nowhere."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import BoxMaker
from tests.support import Box, shell

pytestmark = pytest.mark.root

LINKS = {"SWARM_HOME_LINKS": ".claude/ .claude.json .config/ .gitconfig .npm-global/"}


def reset(box: Box) -> None:
    """What the platform does at a cold start: the root file system is the image's again."""
    shutil.rmtree(box.folder / "home")


def write(box: Box, text: str) -> None:
    """Run a script as the user of a machine that has no links."""
    box.boot({"SWARM_HOME_LINKS": ""})
    assert box.ssh(text).returncode == 0
    assert box.stop() == 0


def test_what_the_home_has_is_moved_once_and_outlives_cold_starts(make_box: BoxMaker) -> None:
    box = make_box()
    write(box, "mkdir -p .claude/deep; echo one >.claude/deep/f; echo me >.gitconfig")
    box.boot(LINKS)
    assert box.ssh("cat .claude/deep/f .gitconfig").stdout == "one\nme\n"
    assert (
        box.ssh("readlink .claude .gitconfig").stdout
        == "/mnt/.home/.claude\n/mnt/.home/.gitconfig\n"
    )
    for path in (".claude/", ".gitconfig"):
        box.event("home.moved", path=path)
    box.ssh("echo two >.claude/deep/f; mkdir .npm-global/bin")
    for _ in range(2):
        assert box.stop() == 0
        reset(box)
        box.boot(LINKS)
        assert box.ssh("cat .claude/deep/f .gitconfig; ls .npm-global").stdout == "two\nme\nbin\n"
    assert not box.events("home.moved")
    assert not [e for e in box.events("agent.notice") if e["part"] == "home"]


def test_a_program_that_replaces_a_link_loses_nothing(make_box: BoxMaker) -> None:
    """Many write a new file and rename it over the old one: a link is gone then."""
    box = make_box().boot(LINKS)
    box.ssh("echo old >.claude.json")
    box.ssh("echo new >.claude.json.tmp; mv .claude.json.tmp .claude.json")
    assert box.ssh("test -L .claude.json").returncode == 1
    assert box.stop() == 0
    reset(box)
    box.boot(LINKS)
    assert box.ssh("cat .claude.json").stdout == "new\n"


def test_where_both_have_something_the_volume_counts_and_nothing_is_lost(
    make_box: BoxMaker,
) -> None:
    box = make_box().boot(LINKS)
    box.ssh("echo volume >.gitconfig")
    assert box.stop() == 0
    reset(box)
    write(box, "echo image >.gitconfig")
    box.boot(LINKS)
    assert box.ssh("cat .gitconfig").stdout == "volume\n"
    assert box.ssh("cat .gitconfig.before-*").stdout == "image\n"
    assert "kept as" in box.event("agent.notice", part="home")["notice"]


def test_a_boot_that_broke_off_is_taken_up_again(make_box: BoxMaker) -> None:
    box = make_box()
    write(box, "mkdir .claude; echo whole >.claude/f")
    half = box.machine.volume / ".home" / ".claude.moving"
    half.mkdir(parents=True)
    (half / "f").write_text("ha")
    subprocess.run(["chown", "-R", "1000:1000", half.parent], check=True)
    box.boot(LINKS)
    assert box.ssh("cat .claude/f").stdout == "whole\n"
    assert box.ssh("ls -A /mnt/.home | grep moving").stdout == ""
    # It broke off after the copy, before the home's own was taken away.
    box.ssh("rm .claude; cp -r /mnt/.home/.claude .claude")
    box.machine.kill()
    box.boot(LINKS)
    assert box.ssh("cat .claude/f; readlink .claude").stdout == "whole\n/mnt/.home/.claude\n"


def test_links_of_the_user_lead_root_nowhere(make_box: BoxMaker) -> None:
    box = make_box()
    write(
        box,
        "ln -s /root .claude; mkdir /mnt/.home; ln -s /etc /mnt/.home/.config; mkdir .config; "
        "echo x >.config/planted; ln -s /etc/shadow .gitconfig",
    )
    # Copies of the machine's own: other tests, and people, change those of this computer.
    etc, root = box.folder / "copy" / "etc", box.folder / "copy" / "root"
    root.mkdir(parents=True)
    (root / "kept").touch()
    own = f"cp -a /etc {etc}; mount --bind {etc} /etc; mount --bind {root} /root"
    box.boot(LINKS, before=f"{own}; ls -A /etc >{box.folder}/before")
    before = sorted((box.folder / "before").read_text().splitlines())
    assert "shadow" in before
    assert (sorted(os.listdir(etc)), root.stat().st_uid, os.listdir(root)) == (before, 0, ["kept"])
    assert box.ssh("readlink .claude").stdout == "/mnt/.home/.claude\n"
    assert "Permission denied" in box.ssh("cat .gitconfig.before-*").stderr
    assert box.stop() == 0
    assert sorted(os.listdir(etc)) == before


def test_the_user_works_in_the_volume_but_cannot_replace_the_agents_folder(
    make_box: BoxMaker,
) -> None:
    box = make_box()
    box.machine.volume.mkdir(parents=True)
    box.machine.volume.chmod(0o755)  # as a new volume is: root's
    box.boot()
    assert (
        box.ssh("mkdir /mnt/project && echo x >/mnt/project/f && rm -r /mnt/project").returncode
        == 0
    )
    for attack in (
        "mv /mnt/.swarm /mnt/away",
        "rm -rf /mnt/.swarm",
        "ls /mnt/.swarm",
        "chmod 777 /mnt",
    ):
        assert box.ssh(attack).returncode != 0, attack
    status = box.machine.volume.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, 1000, 0o1775)


def test_a_folder_of_somebodys_computer_stays_theirs(make_box: BoxMaker) -> None:
    """A bind mount under Docker: the user's own folder, not a file system of its own."""
    box = make_box()
    box.machine.volume.mkdir(parents=True)
    os.chown(box.machine.volume, 1000, 1000)
    box.boot(LINKS)
    assert box.machine.volume.stat().st_uid == 1000
    assert box.ssh("readlink .claude").stdout == "/mnt/.home/.claude\n"


def test_nothing_below_the_volumes_root_is_touched_at_boot(make_box: BoxMaker) -> None:
    box = make_box()
    deep = box.machine.volume / "project" / "f"
    deep.parent.mkdir(parents=True)
    deep.write_text("root's")
    box.boot()
    assert (deep.stat().st_uid, deep.parent.stat().st_uid) == (0, 0)


def test_a_read_only_volume_costs_permanence_only(make_box: BoxMaker) -> None:
    box = make_box()
    box.boot(LINKS, before="mount -o remount,bind,ro /mnt")
    assert box.ssh("mkdir -p .claude && echo x >.claude/f && cat .claude/f").stdout == "x\n"
    assert not list(box.machine.volume.iterdir())
    assert "Read-only" in box.event("agent.notice", part="home")["notice"]


def test_without_a_volume_it_is_said_at_login(make_box: BoxMaker) -> None:
    box = make_box().boot({"SWARM_VOLUME": "/srv"})
    with shell(box) as screen:
        screen.expect("No volume is mounted at /srv: nothing outlives this machine.")
