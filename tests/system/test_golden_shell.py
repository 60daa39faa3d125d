"""The environment of the login account's processes, compared with a table in the docs."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.services import Services
from tests.support import Box, shell, until

pytestmark = pytest.mark.root

PROBE = Path(__file__).with_name("probe.sh")
DOCS = Path(__file__).parents[2] / "docs" / "sessions.md"

KINDS = ("ssh host", "ssh host cmd", "ssh -t host cmd", "service", "check", "hook")


def read(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("\t", 1) for line in lines)


def wait_for(box: Box, kind: str) -> dict[str, str]:
    path = box.machine.volume / "probes" / kind.replace(" ", "_")
    until(path.exists, kind)
    return read(path)


def table(seen: dict[str, dict[str, str]]) -> str:
    rows = ["| | " + " | ".join(f"`{kind}`" if "ssh" in kind else kind for kind in KINDS) + " |"]
    rows.append("|---" * (len(KINDS) + 1) + "|")
    for name in next(iter(seen.values())):
        cells = [seen[kind][name].replace("|", "\\|") or "-" for kind in KINDS]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def test_the_table_of_the_docs_is_what_every_kind_of_process_finds(services: Services) -> None:
    box = services.box
    volume = box.machine.volume
    (volume / "probes").mkdir(parents=True)
    (volume / "probes").chmod(0o1777)
    probe = volume / "probe"
    probe.write_text(PROBE.read_text())
    probe.chmod(0o755)
    for name, ours in (("limits", "ulimit -a | grep -v ^process"), ("processes", "ulimit -p")):
        said = subprocess.run(["sh", "-c", ours], capture_output=True, check=True)
        (volume / name).write_bytes(said.stdout)
    services.boot(
        '[service.probe]\ncommand = ["/mnt/probe", "service"]\noneshot = true\n',
        {
            "EDITOR": "vim",
            "PATH": "/opt/image/bin:/root/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:"
            "/sbin:/bin",
            "DATABASE_PASSWORD": "hunter2",
            "GH_TOKEN": "chosen",
            "SWARM_IDLE_CHECK": "1s",
            "SWARM_HOME_LINKS": "",
            "SWARM_SLEEP_MODE": "stop",
        },
    )
    for folder, name in (("checks.d", "check"), ("sleep.d", "hook")):
        place = f".config/swarm/{folder}"
        script = f"#!/bin/sh\\nexec /mnt/probe {name}\\n"
        box.ssh(f"mkdir -p {place} && printf '{script}' >{place}/x && chmod 755 {place}/x")
    seen = {"service": wait_for(box, "service"), "check": wait_for(box, "check")}
    with shell(box) as screen:
        screen.type("/mnt/probe ssh_host; exit\n")
        seen["ssh host"] = wait_for(box, "ssh host")
    assert box.ssh("/mnt/probe ssh_host_cmd").returncode == 0
    assert box.ssh("/mnt/probe ssh_-t_host_cmd", options=["-tt"]).returncode == 0
    assert "going to sleep" in box.agent("sleep", "--now").stdout
    for kind in KINDS:
        seen[kind] = wait_for(box, kind)
    text = table(seen).replace(f"/home/{box.user}", "~").replace(box.user, "dev")
    text = re.sub(r"/home/dev", "~", text)
    wanted = DOCS.read_text().partition("<!-- probe -->\n")[2].partition("\n<!-- end -->")[0]
    assert text == wanted, f"docs/sessions.md should have\n{text}"


def test_sftp_makes_files_as_a_shell_does(box: Box, tmp_path: Path) -> None:
    """No probe can run in sftp: the files that it creates show its settings."""
    (tmp_path / "f").write_text("x")
    (tmp_path / "batch").write_text(f"pwd\nput {tmp_path}/f new\n")
    sftp = subprocess.run(
        ["sftp", *box.ssh_options(), "-b", str(tmp_path / "batch"), f"{box.user}@127.0.0.1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"/home/{box.user}" in sftp.stdout
    made = box.ssh('stat -c "%a %U" new; touch beside; stat -c "%a %U" beside').stdout.splitlines()
    assert made[0] == made[1]
