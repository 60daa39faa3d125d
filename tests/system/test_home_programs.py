"""Real programs find their files in the home after a cold start, even if they replace them."""

import base64
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.claims import free_port
from tests.conftest import BoxMaker
from tests.support import Box, ready, until
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
    """It replaces ~/.claude.json; to fix a broken login, people remove both and log in again."""
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
    """Install the program from the image's tools where the login account can reach it."""
    target = box.machine.volume / "claude"
    if not target.exists():
        shutil.copy(CLAUDE.resolve(), target)
        target.chmod(0o755)
    return "/mnt/claude"


COMMIT = "848b80aeb52026648a8ff9f7c45a9b0a80641e2e"

SERVER = """
const http = require('http'), fs = require('fs'), path = require('path');
const data = path.join(process.env.HOME, '.vscode-server/data/Machine');
fs.mkdirSync(data, {recursive: true});
fs.appendFileSync(path.join(data, 'starts'), 'start\\n');
const server = http.createServer((_, answer) =>
  answer.end(fs.readFileSync(path.join(data, 'starts'))));
server.listen(0, '127.0.0.1', () =>
  console.log('Extension host agent listening on ' + server.address().port));
"""

# The script that Remote-SSH sends to the standard input of `ssh host bash`, without the check of
# the architecture: it installs a missing server, starts it detached, and prints its port.
BOOTSTRAP = """
set -e
folder=$HOME/.vscode-server/bin/$COMMIT log=$HOME/.vscode-server/.$COMMIT.log
if [ ! -f "$folder/server.js" ]; then
    mkdir -p "$folder" && cd "$folder"
    echo "$ARCHIVE" | base64 -d | tar -xzf - --strip-components 1
    echo installed
fi
rm -f "$log"
nohup node "$folder/server.js" </dev/null >"$log" 2>&1 &
for _ in $(seq 300); do
    port=$(sed -n 's/.*listening on //p' "$log" 2>/dev/null) || true  # not begun yet
    [ -z "$port" ] || break
    sleep 0.1
done
echo "listeningOn==$port=="
"""


def start_editors_server(box: Box, folder: Path) -> tuple[str, str]:
    """Start it as VS Code's Remote-SSH does; the script's output, and the server's answer."""
    (folder / "server").mkdir(exist_ok=True)
    (folder / "server" / "server.js").write_text(SERVER)
    archive = folder / "server.tar.gz"
    subprocess.run(["tar", "-czf", str(archive), "-C", str(folder), "server"], check=True)
    packed = base64.b64encode(archive.read_bytes()).decode()
    script = f"COMMIT={COMMIT}\nARCHIVE={packed}\n{BOOTSTRAP}"
    done = box.ssh("bash", options=["-T"], input=script)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"listeningOn==(\d+)==", done.stdout)
    assert found is not None, done.stdout
    port = free_port()
    forward = [f"-L127.0.0.1:{port}:127.0.0.1:{found[1]}", "-N", "-oExitOnForwardFailure=yes"]
    forwarding = subprocess.Popen(box.ssh_command(options=forward))

    def answer() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as reply:
                return str(reply.read().decode())
        except OSError:
            return ""

    try:
        return done.stdout, until(answer, "the editor's server by the forwarded port")
    finally:
        forwarding.terminate()
        forwarding.wait()


def test_an_editors_server_is_installed_once_and_outlives_the_login_and_cold_starts(
    box: Box, tmp_path: Path
) -> None:
    said, starts = start_editors_server(box, tmp_path)
    assert "installed" in said
    assert starts == "start\n"
    assert box.ssh("pgrep -c -f vscode-server/bin").returncode == 0  # its login is long over
    cold_start(box, USUAL)
    said, starts = start_editors_server(box, tmp_path)
    assert "installed" not in said
    assert starts == "start\nstart\n"
    # The remedy for a broken server, while it runs.
    box.ssh("rm -rf ~/.vscode-server")
    cold_start(box, USUAL)
    assert box.ssh("ls -A ~/.vscode-server").stdout == ""
    said, starts = start_editors_server(box, tmp_path)
    assert "installed" in said
    assert starts == "start\n"
