"""Real programs find what they wrote in the home after a cold start, and after they replaced it."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import BoxMaker
from tests.support import Box, ready
from tests.system.test_home import cold_start, is_link

pytestmark = pytest.mark.root

USUAL = {"SWARM_HOME_LINKS": "usual"}
TOOLS = Path(__file__).parents[1] / "tools" / "node_modules"
CLAUDE = TOOLS / "@anthropic-ai" / "claude-code-linux-x64" / "claude"


PROGRAMS = {
    "git": (
        "git config --global user.name Ann && git config --global user.email ann@example.com",
        "git config --global user.name",
        "Ann\n",
    ),
    "npm": (
        "npm config set --location=user init-author-name=Ann",
        "npm config get --location=user init-author-name",
        "Ann\n",
    ),
    "npm's own programs": (
        "npm config set --location=user prefix=$HOME/.npm-global && mkdir -p p && cd p && "
        'printf \'{"name":"hi","version":"1.0.0","bin":{"hi":"hi.js"}}\' >package.json && '
        "printf '#!/usr/bin/env node\\nconsole.log(\"hi\")\\n' >hi.js && npm pack --silent && "
        "npm install --global --silent --offline ./hi-1.0.0.tgz",
        "hi",
        "hi\n",
    ),
    "gpg": (
        "gpg --batch --quiet --passphrase '' --quick-gen-key ann@example.com ed25519 2>&1; "
        "gpgconf --kill all",
        "gpg --list-secret-keys --with-colons 2>/dev/null | grep -c ^sec; gpgconf --kill all",
        "1\n",
    ),
    "ssh": (
        "ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519 </dev/null",
        "ssh-keygen -yf .ssh/id_ed25519 | cut -d' ' -f1",
        "ssh-ed25519\n",
    ),
}


@pytest.fixture
def box(make_box: BoxMaker) -> Box:
    return ready(make_box().boot(USUAL))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_finds_its_settings_after_a_cold_start(box: Box, program: str) -> None:
    write, read, expected = PROGRAMS[program]
    done = box.ssh(write)
    assert done.returncode == 0, done.stdout + done.stderr
    assert box.ssh(read).stdout == expected
    cold_start(box, USUAL)
    assert box.ssh(read).stdout == expected


@pytest.mark.skipif(not CLAUDE.exists(), reason="scripts/setup --tests has not installed it")
def test_claude_code_keeps_its_settings_and_a_new_login_after_rm(box: Box) -> None:
    """It replaces ~/.claude.json; for a broken login people remove both and begin anew."""
    claude = install_claude(box)
    done = box.ssh(f"{claude} mcp add --scope user notes -- true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "notes" in box.ssh("cat .claude.json").stdout
    cold_start(box, USUAL)
    assert "notes" in box.ssh(f"{claude} mcp get notes").stdout
    box.ssh("rm -rf ~/.claude ~/.claude.json")
    done = box.ssh(f"{claude} mcp add --scope user others -- true")
    assert done.returncode == 0, done.stdout + done.stderr
    is_link(box, ".claude")
    is_link(box, ".claude.json")
    cold_start(box, USUAL)
    said = box.ssh("cat .claude.json").stdout
    assert "others" in said
    assert "notes" not in said


def install_claude(box: Box) -> str:
    """The program of the image's tools, where the login account can reach it."""
    target = box.machine.volume / "claude"
    if not target.exists():
        shutil.copy(CLAUDE.resolve(), target)
        target.chmod(0o755)
    return "/mnt/claude"
