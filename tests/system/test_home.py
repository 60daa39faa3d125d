"""The volume and the home: people's files survive the machine, and lead root nowhere."""

import math
import os
import shutil
import subprocess

import pytest

from tests.conftest import BoxMaker
from tests.support import Box, ready, shell, until

pytestmark = pytest.mark.root

LINKS = {"SWARM_HOME_LINKS": ".claude/ .claude.json .config/ .gitconfig .npm-global/"}


def reset(box: Box) -> None:
    """Reset the root file system to the image, as the platform does at a cold start."""
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
    """Many programs write a new file and rename it over the old one, which removes a link."""
    box = make_box().boot(LINKS)
    box.ssh("echo old >.claude.json")
    replace = "echo new >.claude.json.tmp; mv .claude.json.tmp .claude.json; test -L .claude.json"
    assert box.ssh(replace).returncode == 1
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
    # It was interrupted after the copy, before the home's own was removed.
    box.ssh("rm .claude; cp -r /mnt/.home/.claude .claude")
    box.machine.kill()
    box.boot(LINKS)
    assert box.ssh("cat .claude/f; readlink .claude").stdout == "whole\n/mnt/.home/.claude\n"


@pytest.mark.attack
def test_links_of_the_user_lead_root_nowhere(make_box: BoxMaker) -> None:
    box = make_box()
    write(
        box,
        "ln -s /root .claude; mkdir /mnt/.home; ln -s /etc /mnt/.home/.config; mkdir .config; "
        "echo x >.config/planted; ln -s /etc/shadow .gitconfig; "
        "ln -s /etc/ssh /mnt/.home/.ssh; ln -s /etc /mnt/.home/.local",
    )
    links = {"SWARM_HOME_LINKS": LINKS["SWARM_HOME_LINKS"] + " .ssh/ .local/planted/"}
    # The machine's own copies: other tests, and people, change this computer's files.
    etc, root = box.folder / "copy" / "etc", box.folder / "copy" / "root"
    root.mkdir(parents=True)
    (root / "kept").touch()
    own = f"cp -a /etc {etc}; mount --bind {etc} /etc; mount --bind {root} /root"
    box.boot(links, before=f"{own}; ls -A /etc >{box.folder}/before")
    before = sorted((box.folder / "before").read_text().splitlines())
    assert "shadow" in before
    assert (sorted(os.listdir(etc)), root.stat().st_uid, os.listdir(root)) == (before, 0, ["kept"])
    assert (etc / "ssh").stat().st_mode & 0o777 == 0o755
    assert box.ssh("readlink .claude").stdout == "/mnt/.home/.claude\n"
    assert "Permission denied" in box.ssh("cat .gitconfig.before-*").stderr
    assert box.stop() == 0
    assert sorted(os.listdir(etc)) == before


@pytest.mark.attack
def test_the_user_works_in_the_volume_but_cannot_replace_the_agents_folder(
    make_box: BoxMaker,
) -> None:
    box = make_box()
    box.machine.volume.mkdir(parents=True)
    box.machine.volume.chmod(0o755)  # like a new volume, it belongs to root
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
    """A bind mount under Docker: the user's own folder, not a separate file system."""
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
        screen.expect("No volume is mounted at /srv: all data is lost when this machine stops.")


def cold_start(box: Box, environ: dict[str, str] | None = None, *, plug: bool = False) -> None:
    """Sleep and wake as on the platform, or be killed and boot."""
    if plug:
        box.machine.kill()
    else:
        assert box.stop() == 0
    reset(box)
    box.boot(environ or LINKS)


def is_link(box: Box, path: str) -> None:
    until(lambda: box.ssh(f"test -L {path}").returncode == 0, f"{path} is a link", timeout=60)


@pytest.mark.parametrize("plug", [False, True])
def test_a_folder_that_was_removed_and_made_anew_stays_new(make_box: BoxMaker, plug: bool) -> None:
    """The usual remedies: a new login after rm -rf ~/.claude."""
    box = ready(make_box().boot(LINKS))
    box.ssh("echo old >.claude/old; mkdir .claude/projects; echo x >.claude/projects/a")
    box.ssh("rm -rf ~/.claude; mkdir ~/.claude; echo new >~/.claude/login")
    if plug:
        is_link(box, ".claude")
    cold_start(box, plug=plug)
    assert box.ssh("ls .claude; cat .claude/login").stdout == "login\nnew\n"
    assert box.ssh("cat /mnt/.home/.before/.claude@*/old").stdout == "old\n"


@pytest.mark.parametrize("plug", [False, True])
def test_what_was_removed_does_not_come_back(make_box: BoxMaker, plug: bool) -> None:
    """rm -rf ~/.vscode-server, the remedy for an editor's broken server."""
    links = {"SWARM_HOME_LINKS": ".vscode-server/ .gitconfig"}
    box = ready(make_box().boot(links))
    box.ssh("mkdir .vscode-server/bin; echo broken >.vscode-server/bin/server; echo me >.gitconfig")
    box.ssh("rm -rf ~/.vscode-server ~/.gitconfig")
    if plug:
        is_link(box, ".vscode-server")
    cold_start(box, links, plug=plug)
    assert box.ssh("ls -A .vscode-server; cat .gitconfig").stdout == ""
    notices = box.machine.volume / ".home" / ".before"
    assert sorted(name.partition("@")[0] for name in os.listdir(notices)) == [
        ".gitconfig",
        ".vscode-server",
    ]


SOON = 3.0
"""Seconds within which a replaced path is noticed, including the start of two programs."""


def test_a_replaced_path_is_noticed_when_it_happens(make_box: BoxMaker) -> None:
    """Repeatedly, in the home and in a folder of it; also in a folder that was created again."""
    links = {"SWARM_HOME_LINKS": ".gitconfig .config/tool/"}
    box = ready(make_box().boot(links))
    is_link(box, ".config/tool")
    shortest = math.inf
    for path, replace in (
        (".gitconfig", "echo new >.g && mv .g .gitconfig"),
        (".gitconfig", "rm .gitconfig && echo again >.gitconfig"),
        (".config/tool", "rm -rf .config && mkdir -p .config/tool"),
        (".config/tool", "rm .config/tool && mkdir .config/tool"),
    ):
        looks = f"{replace}; while ! test -L {path}; do sleep 0.05; done"
        took = box.ssh(f"bash -c 'TIMEFORMAT=%R; time {{ {looks}; }}'", timeout=60)
        shortest = min(shortest, float(took.stderr))
    # The fastest of them: this computer may be busy.
    assert shortest < SOON


def test_a_replaced_path_is_brought_to_the_volume_when_it_happens_and_told(
    make_box: BoxMaker,
) -> None:
    box = ready(make_box().boot(LINKS))
    box.ssh("echo old >.gitconfig; echo deep >.claude/deep")
    box.ssh(
        "echo new >.g; mv .g .gitconfig; mv .claude .claude.bak; mkdir .claude; echo n >.claude/n"
    )
    is_link(box, ".gitconfig")
    is_link(box, ".claude")
    assert box.ssh("cat .gitconfig .claude/n").stdout == "new\nn\n"
    assert (box.machine.volume / ".home" / ".gitconfig").read_text() == "new\n"
    assert "was replaced; the volume's copy is kept as" in box.agent("status").stdout
    assert "was replaced" in box.ssh("-tt", input="exit\n", options=["-tt"]).stdout


@pytest.mark.attack
def test_a_file_that_is_large_is_moved_once_ssh_is_open(make_box: BoxMaker) -> None:
    box = make_box()
    write(box, "rm -rf .claude.json; truncate -s 100M .claude.json")
    ready(box.boot(LINKS))
    said = box.event("agent.notice", part="home")["notice"]
    assert said == "~/.claude.json is not on the volume: it is large, and moved once SSH is open"
    is_link(box, ".claude.json")


@pytest.mark.attack
def test_pipes_in_the_place_of_its_notes_hold_up_neither_the_boot_nor_what_it_brings(
    make_box: BoxMaker,
) -> None:
    """Nobody writes to them: a process that opens one to read would wait for ever."""
    box = make_box()
    write(
        box,
        "mkdir -p /mnt/.home/.before .cache/swarm-agent .claude; echo mine >.claude/f; "
        "mkfifo /mnt/.home/.before/.claude.copied .cache/swarm-agent/home-is-linked",
    )
    box.boot(LINKS)
    assert box.ssh("cat .claude/f; readlink .claude").stdout == "mine\n/mnt/.home/.claude\n"


@pytest.mark.attack
def test_what_the_boot_could_not_link_is_not_taken_for_removed(make_box: BoxMaker) -> None:
    """The home has nothing yet in the place of a link: the volume's copy wins."""
    box = make_box()
    write(box, "mkdir -p /mnt/.home/.claude; echo kept >/mnt/.home/.claude/f")
    kept = box.machine.volume / ".home"
    os.chown(kept, 0, 0)
    kept.chmod(0o700)
    ready(box.boot(LINKS))
    assert "Permission denied" in box.event("agent.notice", part="home")["notice"]
    os.chown(kept, 1000, 1000)
    assert box.agent("reload").returncode == 0  # it retries at once
    is_link(box, ".claude")
    assert box.ssh("cat .claude/f").stdout == "kept\n"


def test_what_a_program_has_open_is_copied_and_linked_when_it_has_ended(make_box: BoxMaker) -> None:
    box = ready(make_box().boot(LINKS))
    box.ssh("echo old >.claude/old")
    script = (
        "rm -rf .claude; mkdir .claude; exec 3>>.claude/log; "
        "echo one >&3; echo up; cat; echo two >&3"
    )
    login = subprocess.Popen(
        box.ssh_command(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert login.stdout is not None
    assert login.stdout.readline() == "up\n"
    there = box.machine.volume / ".home" / ".claude" / "log"
    until(lambda: there.exists() and there.read_text() == "one\n", "the copy", timeout=60)
    assert box.ssh("test -L .claude").returncode == 1
    login.communicate("")
    cold_start(box)
    assert box.ssh("cat .claude/log").stdout == "one\ntwo\n"


def test_after_a_kill_the_newer_side_of_the_same_home_wins_and_the_other_is_kept(
    make_box: BoxMaker,
) -> None:
    box = make_box().boot(LINKS)
    box.ssh("echo old >.gitconfig; echo old >.claude/f")
    box.ssh("echo new >.g; mv .g .gitconfig; rm .claude; mkdir .claude; echo new >.claude/f")
    box.machine.kill()
    box.boot(LINKS)
    assert box.ssh("cat .gitconfig .claude/f; readlink .claude").stdout == (
        "new\nnew\n/mnt/.home/.claude\n"
    )
    assert (
        box.ssh("cat /mnt/.home/.before/.claude@*/f /mnt/.home/.before/.git*").stdout
        == "old\nold\n"
    )


def test_a_path_that_this_home_never_had_is_not_taken_for_a_removed_one(
    make_box: BoxMaker,
) -> None:
    """A volume from another machine, and a setting that names one more path."""
    box = make_box().boot({"SWARM_HOME_LINKS": ".claude/"})
    box.ssh("mkdir /mnt/.home/.codex; echo key >/mnt/.home/.codex/auth.json")
    assert box.stop() == 0
    box.boot({"SWARM_HOME_LINKS": ".claude/ .codex/"})
    assert box.ssh("cat .codex/auth.json").stdout == "key\n"


def test_what_is_set_aside_is_bounded(make_box: BoxMaker) -> None:
    box = ready(make_box().boot(LINKS))
    for number in range(4):
        box.ssh(f"echo {number} >.g; mv .g .gitconfig")
        is_link(box, ".gitconfig")
    assert box.ssh("cat /mnt/.home/.before/.git*").stdout == "1\n2\n"


def test_a_part_that_is_only_a_copy_of_a_program_stays_off_the_volume(make_box: BoxMaker) -> None:
    links = {"SWARM_HOME_LINKS": ".codex/ -.codex/packages"}
    box = make_box()
    write(
        box, "mkdir -p .codex/packages; echo big >.codex/packages/codex; echo key >.codex/auth.json"
    )
    box.boot(links)
    assert box.ssh("cat .codex/auth.json .codex/packages/codex").stdout == "key\nbig\n"
    kept = box.machine.volume / ".home" / ".codex"
    assert sorted(os.listdir(kept)) == ["auth.json", "packages"]
    assert (kept / "packages").is_symlink()
    cold_start(box, links)
    assert (
        box.ssh("cat .codex/auth.json; ls -A .codex/packages; mkdir .codex/packages/x").stdout
        == "key\n"
    )


def test_agents_and_editors_folders_are_among_the_usual(make_box: BoxMaker) -> None:
    box = make_box().boot({"SWARM_HOME_LINKS": "usual .mytool/"})
    paths = ".claude .codex .gemini .local/share .config .vscode-server .mytool"
    said = box.ssh(f"for p in {paths}; do readlink $p; done").stdout
    assert said == "".join(f"/mnt/.home/{path}\n" for path in paths.split())
