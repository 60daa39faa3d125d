"""We read keys files as sshd does: thousands of lines compared with `ssh-keygen -lf` and sshd."""

import re
import subprocess
from pathlib import Path

import pytest

from agent.access.keys import Keys, find
from tests.conftest import BoxMaker
from tests.keylines import Lines, written
from tests.support import Box, Key, make_key, until

pytestmark = pytest.mark.root

RAW, WRITTEN = "/mnt/lines", "/run/swarm/authorized_keys"

POLICY = ("too short", "DSA keys", "is a certificate", "principals is for")
"""Lines that sshd would accept or ignore, and that we refuse on purpose."""

# One sshd reads both files, and logs at this level which lines it skips. The agent removes its
# configuration at sshd's first message, so this sshd has a copy.
SSHD = """#!/bin/bash
config=/run/sshd-$$
cat "${@: -1}" >$config
exec /usr/sbin/sshd "${@:1:$#-1}" $config -o LogLevel=DEBUG3 \
  -o "AuthorizedKeysFile=/mnt/lines /run/swarm/authorized_keys" 2> >(tee -a /mnt/log >&2)
"""
_STEP = re.compile(
    r"\S+ (\S+):(\d+): (check options|bad key options|advance): |invalid key option string"
)


def skipped(log: str, path: str) -> set[int]:
    """The lines of a keys file that sshd skipped when it first read the file, for a certificate."""
    found = set()
    where, number = "", 0
    for line in log[: log.index(f"{path}: processed")].splitlines():
        if match := _STEP.match(line):
            # The last kind of message does not say where it is: it follows a first one.
            where, number = match[1] or where, int(match[2] or number)
            if where == path and match[3] != "check options":
                found.add(number)
    return found


def fingerprints(path: Path) -> set[str]:
    """The fingerprint of every key that ssh-keygen finds in a file."""
    out = subprocess.run(["ssh-keygen", "-lf", str(path)], capture_output=True, check=False)
    return {line.split()[1].decode() for line in out.stdout.split(b"\n") if line}


def certified(folder: Path) -> Key:
    """A key with a certificate: for a certificate, sshd reads lines of every key type."""
    authority, key = make_key(folder / "ca"), make_key(folder / "cert")
    subprocess.run(
        ["ssh-keygen", "-q", "-s", authority.path, "-I", "x", "-n", "dev", f"{key.path}.pub"],
        check=True,
    )
    return key


def asked(box: Box, folder: Path) -> str:
    """sshd's messages about the lines of `/mnt/lines`, and about the agent's file."""
    program = folder / "sshd"
    program.write_text(SSHD)
    program.chmod(0o755)
    box.boot({"SSH_AUTHORIZED_KEYS_FILE": "/mnt/lines", "SWARM_SSHD": str(program)})
    key = certified(folder)
    options = [f"-oIdentityFile={key.path}", f"-oCertificateFile={key.path}-cert.pub"]
    assert box.ssh("true", options=options).returncode == 0  # the machine's own key comes in
    log = box.machine.volume / "log"
    for path in (RAW, WRITTEN):
        end = f"{path}: processed"
        until(lambda end=end: end in log.read_text(errors="replace"), f"sshd reads {path}")  # type: ignore[misc]
    return log.read_text(errors="replace")


def read(raw: Path) -> Keys:
    found = find({"SSH_AUTHORIZED_KEYS_FILE": str(raw)}, "/no/such/folder")
    assert not [bad for bad in found.bad if bad.line == 0]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_what_sshd_takes_is_usable_and_nothing_else(
    make_box: BoxMaker, tmp_path: Path, seed: int
) -> None:
    box = make_box()
    box.machine.volume.mkdir(parents=True)
    raw = box.machine.volume / "lines"
    draw = Lines(seed)
    lines = [draw.draw() for _ in range(1500)]
    raw.write_bytes(written(lines))
    raw.chmod(0o644)
    found = read(raw)
    log = asked(box, tmp_path)
    taken = set(range(2, len(lines) + 2)) - skipped(log, RAW)
    usable = {entry.line for entry in found.usable}
    bad = {report.line: report.reason for report in found.bad}
    assert len(usable) > 300
    assert len(bad) > 300
    for number in usable - taken:
        pytest.fail(f"sshd skips what we call usable: {lines[number - 2]!r}")
    for number in taken - usable:
        refused_on_purpose = any(reason in bad[number] for reason in POLICY)
        assert refused_on_purpose, f"{bad[number]}: {lines[number - 2]!r}"
    assert skipped(log, WRITTEN) == set()
    ours = tmp_path / "ours"
    text = "".join(entry.as_line() + "\n" for entry in found.usable)
    ours.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert fingerprints(ours) == {entry.key.fingerprint for entry in found.usable}
