"""The real images: built, booted with the agent as PID 1, used over real SSH."""

import asyncio
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.image.conftest import Boot
from tests.image.images import Image, build
from tests.support import ready

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]

TOOLS = (
    "bat --version; claude --version; curl --version; fd --version; fzf --version; gh --version; "
    "git --version; jq --version; mcp-server-memory --help </dev/null; node --version; "
    "rg --version; tmux -V; tsc --version; tsx --version; zsh --version; npm --version"
)


def test_the_remote_image_says_how_it_is_run(remote: Image) -> None:
    assert remote.entrypoint == ("/opt/swarm/bin/swarm-agent", "run")
    assert remote.stop_signal == "SIGTERM"
    assert remote.health == ("CMD", "/opt/swarm/bin/swarm-agent", "health")
    assert remote.environ["SWARM_USER"] == "node"


def test_the_remote_image_has_what_it_needs_and_no_more(remote_root: Path, suite: str) -> None:
    assert not list((remote_root / "etc/ssh").glob("ssh_host_*"))
    assert not (remote_root / "etc/sudoers.d/node").exists()
    for program in ("gcc", "cc", "g++", "make", "pip", "pip3"):
        assert not list(remote_root.glob(f"usr/*bin/{program}")), program
    library = next((remote_root / "opt/swarm/lib").glob("python3*/site-packages"))
    assert not (library / "pip").exists()
    sources = set((library / "agent").rglob("*.py"))
    compiled = {
        path.parent.parent / f"{path.name.split('.')[0]}.py"
        for path in (library / "agent").rglob("*.pyc")
        # PEP 552: 01 is a hash that is never compared.
        if path.read_bytes()[4:8] == b"\x01\0\0\0"
    }
    assert sources == compiled
    for made in ("zsh/site-functions/_swarm-agent", "man/man1/swarm-agent.1"):
        assert "swarm-agent" in (remote_root / "usr/local/share" / made).read_text()
    whole, ours = size(remote_root), size(remote_root / "opt/swarm")
    print(f"{suite}: the image has {whole} MiB, of which {ours} are the agent's")


def size(path: Path) -> int:
    """In MiB, on the disk."""
    command = ["du", "-sxm", str(path)]
    return int(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    )


def test_the_local_image_has_the_tools_and_nothing_of_ssh_or_the_agent(suite: str) -> None:
    """It is also the default target: the last stage."""
    stages = re.findall(r"^FROM .* AS (\w+)", Path("container/Dockerfile").read_text(), re.M)
    assert stages[-1] == "local"
    local = build(suite, "local")
    assert local.user == "node"
    with local.mounted() as root:
        for path in ("usr/sbin/sshd", "etc/ssh/sshd_config", "opt/swarm", "usr/sbin/nft"):
            assert not (root / path).exists(), path
        assert not list(root.glob("usr/local/bin/swarm*"))
        assert (root / "usr/local/bin/claude").is_symlink()
        assert json.loads((root / "home/node/.claude.json").read_text())["mcpServers"]


def test_login_tools_and_shell(make_box: Boot) -> None:
    box = make_box().boot()
    for command in TOOLS.split("; "):
        result = box.ssh(command)
        assert result.returncode == 0, (command, result.stderr)
    assert box.ssh("id -un; echo $0").stdout == "node\nzsh\n"
    assert "sudo: " in box.ssh("sudo -n true").stderr
    said = box.ssh("exit\n", options=["-tt"], input="whence -p swarm-agent\nexit\n").stdout
    assert "/usr/local/bin/swarm-agent" in box.ssh("whence -p swarm-agent").stdout
    assert "error" not in said.lower()
    assert box.agent("health").returncode == 0
    assert box.stop() == 0


@pytest.mark.parametrize("term", ["xterm-ghostty", "xterm-kitty", "wezterm", "alacritty"])
def test_terminals_of_today_are_known(make_box: Boot, term: str) -> None:
    box = make_box().boot()
    look = "tput clear >/dev/null && echo $TERM is known"
    shown = box.ssh(look, options=["-tt"], env={**os.environ, "TERM": term})
    assert f"{term} is known" in shown.stdout


def test_what_people_keep_outlives_cold_starts(make_box: Boot) -> None:
    """Host key, home, history and npm's globals, over two boots from the same image."""
    box = make_box().boot()
    box.ssh(
        "echo '{}' >.claude/mine.json; mkdir -p .npm-global/bin; git config --global user.name A"
    )
    box.ssh(
        "printf '#!/bin/sh\\necho mine\\n' >.npm-global/bin/mine; chmod +x .npm-global/bin/mine"
    )
    box.ssh("zsh -ic 'print -s remember-me; fc -W'")
    fingerprint = box.event("ssh.hostkey")["fingerprint"]
    for _ in range(2):
        assert box.stop() == 0
        box.boot()
        assert (
            box.ssh("cat .claude/mine.json; git config user.name; mine").stdout == "{}\nA\nmine\n"
        )
        assert "remember-me" in box.ssh("cat .zsh_history").stdout
        assert box.event("ssh.hostkey")["fingerprint"] == fingerprint
        assert box.ssh("npm config get prefix").stdout == "/home/node/.npm-global\n"
    assert "mcpServers" in box.ssh("cat .claude.json").stdout


def test_checkpoints_with_the_restic_of_each_debian(make_box: Boot, suite: str) -> None:
    """0.14 and 0.18 write their JSON in different ways; both are read."""
    box = ready(make_box().boot())
    version = box.ssh("restic version").stdout.split()[1]
    assert version.startswith({"bookworm": "0.14.", "trixie": "0.18."}[suite])
    work = "cd /workspace && mkdir -p work/sub && echo precious >work/a && echo two >work/sub/b"
    assert box.ssh(f"{work} && ln -s a work/link && touch $'work/b\\xe9'").returncode == 0
    made = box.ssh("swarm-agent checkpoint --note before", timeout=60)
    assert made.returncode == 0, made.stderr + box.said()
    assert re.match(r"[0-9a-f]{8}: \d+ files, .* in ", made.stdout), made.stdout
    name = made.stdout.partition(":")[0]
    listing = "cd /workspace/work && find . -printf '%p %m %T@ %l\\n' | sort | base64"
    before = box.ssh(listing).stdout
    spoiled = box.ssh("cd /workspace/work && rm -r sub b* link && echo x >a && touch n")
    assert spoiled.returncode == 0, spoiled.stderr
    said = box.ssh(f"swarm-agent diff {name}", timeout=60).stdout
    assert re.search(r"gone +/workspace/work/sub/b", said), said
    assert re.search(r"changed +/workspace/work/a", said), said
    assert re.search(r"new +/workspace/work/n", said), said
    done = box.ssh("swarm-agent restore latest /workspace/work", timeout=60)
    assert "to undo this: swarm-agent restore" in done.stdout, done.stderr
    after = box.ssh(listing).stdout
    assert after == before
    listed = json.loads(box.ssh("swarm-agent checkpoints --json").stdout)["checkpoints"]
    assert [each["cause"] for each in listed] == ["by hand", "to compare", "before a restore"]
    assert listed[0]["files"] >= 3 and listed[0]["bytes"] >= 13 and not listed[0]["unread"]
    # Since 0.18 restic also reports errors as JSON.
    config = box.machine.volume / ".swarm/checkpoints/repo/config"
    config.chmod(0o600)
    config.write_bytes(os.urandom(155))
    said = box.ssh("swarm-agent checkpoint", timeout=60).stderr
    assert "is damaged: ciphertext verification failed" in " ".join(said.split())
    assert box.ssh("swarm-agent checkpoint", timeout=60).returncode == 0
    assert "damaged" in box.event("checkpoint.replaced")["reason"]


def test_environment_of_sessions(make_box: Boot) -> None:
    box = make_box().boot({"ANTHROPIC_API_KEY": "sk-1", "OTHER": "hidden", "FLY_REGION": "ams"})
    said = box.ssh("env").stdout
    assert "ANTHROPIC_API_KEY=sk-1\n" in said
    assert "FLY_REGION=ams\n" in said
    assert "DISABLE_AUTOUPDATER=1\n" in said  # the image's own
    assert "DEBIAN_FRONTEND=\n" in said
    assert "NODE_OPTIONS=--max-old-space-size=" in said
    assert "hidden" not in said
    heap = box.ssh("node -p 'Math.floor(v8.getHeapStatistics().heap_size_limit / 1048576)'").stdout
    wanted = int(re.search(r"max-old-space-size=(\d+)", said)[1])  # type: ignore[index]
    assert wanted <= int(heap) < wanted * 1.5


def test_mcp_over_ssh(make_box: Boot) -> None:
    """The laptop's MCP client starts a server in the machine by ssh, and uses it."""
    box = make_box().boot()
    server = "MEMORY_FILE_PATH=~/.claude/memory.jsonl exec mcp-server-memory"
    command, *words = box.ssh_command(server)

    async def use() -> tuple[list[str], str]:
        server = StdioServerParameters(command=command, args=words)
        async with (
            stdio_client(server) as (reading, writing),
            ClientSession(reading, writing) as mcp,
        ):
            await mcp.initialize()
            tools = [tool.name for tool in (await mcp.list_tools()).tools]
            entity = {"name": "swarm", "entityType": "project", "observations": ["sleeps"]}
            await mcp.call_tool("create_entities", {"entities": [entity]})
            found = await mcp.call_tool("search_nodes", {"query": "swarm"})
            return tools, str(found.content)

    tools, found = asyncio.run(use())
    assert "create_entities" in tools
    assert "sleeps" in found
    assert box.event("ssh.session.closed")["reason"] == "logged out"
