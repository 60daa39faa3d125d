"""ssh for the machines: a configuration included in the user's own, and strict host keys."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.swarm import place
from deploy.swarm.place import Place

LOGIN = "node"
PORT = 10022
ANSWER = 90
"""Seconds that one login may take, including a start of the machine."""

KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")

_BLOCK = """\
Host {name}
  HostName {address}
  HostKeyAlias swarm-{name}
  Port {port}
  User {login}
  UserKnownHostsFile {known_hosts}
  StrictHostKeyChecking yes
  ServerAliveInterval 20
  ServerAliveCountMax 3
  ConnectTimeout 60
"""


def user_config() -> Path:
    """The user's own configuration, in which ours is included."""
    return Path(os.environ.get(place.SSH_CONFIG_VARIABLE) or "~/.ssh/config").expanduser()


def configure(where: Place, address: str, host_key: str, private: str) -> None:
    """Write the machine's configuration with its host key, and include it.

    Without an address ssh goes through `swarm proxy`. The line goes to the top of the user's file:
    an Include below a Host would belong to that Host.
    """
    block = _BLOCK.format(
        name=where.name,
        address=address or f"{where.name}.internal",
        port=PORT,
        login=LOGIN,
        known_hosts=quoted(where.known_hosts),
    )
    if not address:
        block += f"  ProxyCommand {quoted(program())} proxy {where.name}\n"
    if found := private or private_key():
        block += f"  IdentityFile {quoted(found)}\n"
    place.write(where.known_hosts, f"swarm-{where.name} {host_key}\n".encode())
    place.write(where.ssh_config, os.fsencode(block))
    include = os.fsencode(f"Include {quoted(place.root() / 'machines' / '*' / 'ssh_config')}\n")
    config = user_config()
    before = config.read_bytes() if config.exists() else b""
    if include not in before:
        place.write(config, include + (b"\n" + before if before else b""))


def quoted(path: Path | str) -> str:
    """A path for ssh's configuration: in quotes if it has a space."""
    text = str(path)
    return f'"{text}"' if " " in text else text


def program() -> Path:
    """The `swarm` command that runs now."""
    return Path(os.path.abspath(Path(sys.executable).with_name("swarm")))


def private_key() -> Path | None:
    """The first of the user's keys that ssh tries by default."""
    folder = user_config().parent
    for name in KEYS:
        if (folder / f"{name}.pub").exists():
            return folder / name
    return None


def make_key() -> Path:
    """Make a key pair without a passphrase, where ssh looks by default."""
    path = user_config().parent / KEYS[0]
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def command(where: Place, words: Sequence[str] = (), options: Sequence[str] = ()) -> list[str]:
    """The ssh command for a machine; it reads the machine's configuration only."""
    return ["ssh", "-F", str(where.ssh_config), *options, where.name, *words]


def answers(where: Place, options: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
    """Log in once, without a terminal or prompts."""
    words = command(where, ["true"], ["-o", "BatchMode=yes", *options])
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=ANSWER,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 255, "", f"no answer within {ANSWER} s")
