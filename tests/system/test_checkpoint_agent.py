"""Checkpoints as people use them: over SSH, by hand and automatic."""

import json
import re
import socket

import pytest

from deploy.standin import MachineState
from tests.conftest import BoxMaker, CloudMaker
from tests.support import Box, ready, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

WORK = "mkdir -p /mnt/work/sub; cd /mnt/work; echo precious >a; echo two >sub/b; ln -s a link"


def test_the_login_user_makes_compares_and_restores_and_only_root_deletes(box: Box) -> None:
    """The story of the deleted folder."""
    ready(box)
    assert box.ssh(WORK).returncode == 0
    agent = box.machine.program
    made = box.ssh(f"{agent} checkpoint --note 'before, the agent'", timeout=60)
    assert made.returncode == 0, made.stderr + box.said()
    name = made.stdout.split(":")[0]
    assert re.fullmatch(r"[0-9a-f]{8}", name)
    box.ssh("rm -r /mnt/work; mkdir /mnt/work; echo worse >/mnt/work/a; touch /mnt/work/new")
    said = box.ssh(f"{agent} diff {name}", timeout=60).stdout
    assert re.search(r"gone +/mnt/work/sub/b", said), said
    assert re.search(r"changed +/mnt/work/a", said), said
    done = box.ssh(f"cd /mnt && {agent} restore {name[:6]} work", timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "to undo this: swarm-agent restore" in done.stdout
    shown = box.ssh("cd /mnt/work && cat a sub/b && readlink link && ls new")
    assert shown.stdout == "precious\ntwo\na\n"
    assert "new" in shown.stderr

    listed = json.loads(box.ssh(f"{agent} checkpoints --json").stdout)["checkpoints"]
    assert [each["cause"] for each in listed] == ["by hand", "to compare", "before a restore"]
    assert listed[0]["note"] == "before, the agent"
    back = done.stdout.split("swarm-agent restore ")[1].strip()
    assert box.ssh(f"{agent} restore {back}", timeout=60).returncode == 0
    assert box.ssh("cat /mnt/work/a; ls /mnt/work").stdout == "worse\na\nnew\n"

    # One line each at 80 columns, wrapped if the note is long.
    table = box.ssh(f"COLUMNS=80 {agent} checkpoints").stdout
    assert re.match(r"checkpoint +made \(UTC\) +why +files +size +new +changed\n", table), table
    assert re.search(rf"^{name} .* by hand: before, ", table, re.MULTILINE), table
    assert max(map(len, table.splitlines())) <= 80

    unknown = box.ssh(f"{agent} restore ffff").stderr
    assert "there is no checkpoint 'ffff': swarm-agent checkpoints lists them" in unknown
    refused = box.ssh(f"{agent} checkpoints --delete {name}")
    assert refused.returncode != 0
    assert box.agent("checkpoints", "--delete", name).returncode == 0
    listed = json.loads(box.agent("checkpoints", "--json").stdout)["checkpoints"]
    assert name not in [each["id"] for each in listed]

    shown = json.loads(box.agent("status", "--json").stdout)["checkpoints"]
    assert [each["id"] for each in shown] == [each["id"] for each in reversed(listed)][:5]
    assert re.search(r"undo +\d checkpoints, the latest \d+ s ago", box.agent("status").stdout)
    assert float(box.metric("swarm_checkpoint_timestamp_seconds")) > 0
    for path in ("/mnt/.swarm", "/mnt/.swarm/checkpoints/repo", "/mnt/.swarm/checkpoints/key"):
        assert box.ssh(f"cat {path} || ls {path}").returncode != 0


def test_a_checkpoint_is_made_before_each_sleep(make_cloud: CloudMaker) -> None:
    """It has the changes since the last one; a wake-up without activity makes none."""
    cloud = make_cloud().up({"SWARM_CHECKPOINTS": "on"})
    assert cloud.ssh("mkdir -p /mnt/work; echo precious >/mnt/work/a").returncode == 0
    made = cloud.event("checkpoint.made")
    assert made["cause"] == "before sleep"
    cloud.becomes(MachineState.STOPPED)
    assert cloud.event("agent.stopped")["reason"].startswith("sleep:")
    assert not cloud.events("checkpoint.failed")
    with socket.create_connection(("127.0.0.1", cloud.port), timeout=30) as scan:
        scan.recv(4)
    until(lambda: len(cloud.events("agent.stopped")) == 2, "the second sleep", 90)
    assert len(cloud.events("checkpoint.made")) == 1


def test_without_restic_the_agent_says_so(make_box: BoxMaker) -> None:
    """Everything else works."""
    box = make_box()
    box.boot(before="mount --bind /dev/null /usr/bin/restic")
    ready(box)
    said = box.ssh(f"{box.machine.program} checkpoint", timeout=60)
    assert said.returncode != 0
    assert "restic" in said.stderr
    assert box.ssh("true").returncode == 0
