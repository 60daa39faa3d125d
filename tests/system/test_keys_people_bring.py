"""Keys as people write them, each tested with a login; keys that let nobody in are reported."""

import base64
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import BoxMaker
from tests.support import Box, Key, let_others_in, make_key, ready, until

pytestmark = pytest.mark.root

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


def _bare(key: str) -> str:
    return " ".join(key.split(" ")[:2])


OTHER = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode()

USABLE: dict[str, Callable[[str], str]] = {
    "tabs": lambda key: "\t".join(key.split(" ")),
    "no-break space in the comment": lambda key: f"{key}\u00a0of Zo\u00eb {FAMILY}",
    "domain account": lambda key: f"{_bare(key)} azuread\\nancy@LAPTOP",
    "command with a line break": lambda key: f"command=\"printf 'a\\nb'\" {key}",
    "two in one line": lambda key: f"{key}\\n{OTHER} other",
    "two in one line from Windows": lambda key: f"{OTHER}\\r\\n{key}\\r\\n",
    "Windows file": lambda key: f"{OTHER}\r\n{key}\r\n",
    "byte order mark": lambda key: f"\ufeff{key}",
    "quotes": lambda key: f"'{key}'",
    "base64 of the file": lambda key: base64.b64encode(f"{key}\n".encode()).decode(),
    "escape sequences in the comment": lambda key: f"{key}\x1b[2J\x07",
    "options in capitals": lambda key: f'No-X11-Forwarding,COMMAND="echo in",,pty {key}',
    "back slash before the quote": lambda key: f'environment="A=\\"b\\"" {key}',
    "expires some day": lambda key: f'expiry-time="20991231" {key}',
    "from anywhere": lambda key: f'from="127.0.0.0/8,::1" {key}',
}  # fmt: skip

FILES: dict[str, Callable[[str], bytes]] = {
    "UTF-16 of Windows": lambda key: f"{key}\r\n".encode("utf-16"),
    "UTF-16 big endian": lambda key: b"\xfe\xff" + f"{key}\r\n".encode("utf-16-be"),
    "UTF-8 with a mark": lambda key: f"{key}\r\n".encode("utf-8-sig"),
    "a name in Latin-1": lambda key: f"{key} J\u00fcrgen\n".encode("latin-1"),
}

NOWHERE = {
    "expired": ('expiry-time="20010101" {}', "it has expired"),
    "from elsewhere": ('from="192.0.2.0/24" {}', "never matches, sshd sees 127.0.0.0/8"),
    "from a name": ('from="*.example.com" {}', "never matches"),
    "certificate": ("ssh-ed25519-cert-v01@openssh.com AAAA", "this is a certificate"),
    "principals": ('principals="dev" {}', "for a cert-authority"),
    "address": ("https://github.com/ann.keys", "this is a web address"),
    "PuTTY": ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----", "-keygen -i"),
    "private": ("-----BEGIN PRIVATE KEY-----\nb3Bl\n-----END PRIVATE KEY-----", "a private key"),
    "missing file": ("/run/secrets/nothing.pub", "No such file"),
}  # fmt: skip


def open_to(box: Box, environ: dict[str, str]) -> Box:
    """Boot, even if nobody can log in."""
    box.start(environ)
    box.event("boot.listening")
    return ready(box)


@pytest.mark.parametrize("name", USABLE)
def test_a_secret_as_people_bring_it_lets_its_owner_in(
    make_box: BoxMaker, key: Key, name: str
) -> None:
    box = make_box().boot({"SSH_AUTHORIZED_KEYS": USABLE[name](key.public)})
    assert box.ssh("echo in").returncode == 0
    assert not box.events("ssh.key.refused")


@pytest.mark.parametrize("name", FILES)
def test_a_file_as_people_bring_it_lets_its_owner_in(
    make_box: BoxMaker, key: Key, name: str, tmp_path: Path
) -> None:
    let_others_in(tmp_path)
    (tmp_path / "me.pub").write_bytes(FILES[name](key.public))
    box = make_box().boot(
        {"SSH_AUTHORIZED_KEYS": "", "SSH_AUTHORIZED_KEYS_FILE": str(tmp_path / "me.pub")}
    )
    assert box.ssh("echo in").returncode == 0


@pytest.mark.parametrize("name", NOWHERE)
def test_what_lets_nobody_in_is_told_by_keys_check_and_health(
    make_box: BoxMaker, key: Key, name: str
) -> None:
    line, reason = NOWHERE[name]
    environ = {
        "SSH_AUTHORIZED_KEYS": line.format(key.public),
        "SWARM_PROXY_PROTOCOL": "required",
        "SWARM_PROXY_NETWORKS": "127.0.0.0/8",
    }
    box = open_to(make_box(), environ)
    said = box.agent("keys")
    assert reason in said.stdout + said.stderr
    health = box.agent("health")
    assert health.returncode != 0
    assert "nobody can log in" in health.stdout + health.stderr
    command, base = box.agent_command("check")
    check = subprocess.run(
        command,
        env=base | environ | {"SWARM_USER": box.user},
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode != 0
    assert reason in check.stdout + check.stderr


def test_the_same_key_with_other_options_counts_twice_and_is_told(
    make_box: BoxMaker, key: Key
) -> None:
    """As for sshd: the first line whose options allow it."""
    lines = f'from="192.0.2.1" {key.public}\ncommand="echo second" {key.public}\n{key.public}'
    box = ready(make_box().boot({"SSH_AUTHORIZED_KEYS": lines}))
    assert box.ssh("echo asked").stdout == "second\n"
    said = box.agent("keys").stderr
    assert "line 2: the key of SSH_AUTHORIZED_KEYS line 1 with other options" in said


def test_a_certificate_of_an_authority_comes_in_and_is_named(
    make_box: BoxMaker, tmp_path: Path
) -> None:
    authority, me = make_key(tmp_path / "ca"), make_key(tmp_path / "me")
    box = make_box()
    sign = [
        "ssh-keygen",
        "-q",
        "-s",
        str(authority.path),
        "-I",
        "ann",
        "-n",
        box.user,
        f"{me.path}.pub",
    ]
    subprocess.run(sign, check=True)
    box.boot({"SSH_AUTHORIZED_KEYS": f"cert-authority {_bare(authority.public)} our people"})
    options = [f"-oIdentityFile={me.path}", f"-oCertificateFile={me.path}-cert.pub"]
    assert box.ssh("echo in", options=options).stdout == "in\n"
    assert box.event("ssh.session.opened")["key"] == "our people"


def test_a_file_that_others_could_replace_is_no_source_of_keys(
    make_box: BoxMaker, key: Key, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "me.pub").write_text(key.public)
    box = open_to(make_box(), {"SSH_AUTHORIZED_KEYS": str(tmp_path / "me.pub")})
    assert "other accounts can replace it" in box.event("ssh.key.refused")["reason"]


def test_ssh_copy_id_is_explained(box: Box, tmp_path: Path) -> None:
    """It says "1 key added", and the next login with that key is refused."""
    ready(box)
    new = make_key(tmp_path / "new-laptop")
    (tmp_path / ".ssh").mkdir(mode=0o700)
    options = box.ssh_options()[2:]
    copy = subprocess.run(
        ["ssh-copy-id", "-f", "-i", f"{new.path}.pub", *options, f"{box.user}@127.0.0.1"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Number of key(s) added: 1" in copy.stdout, copy.stderr
    assert box.ssh(
        "true", options=[f"-oIdentityFile={new.path}", "-oIdentityAgent=none"]
    ).returncode in (0, 255)
    notice = box.event("agent.notice", part="keys in the home")["notice"]
    assert "~/.ssh/authorized_keys lets nobody in (new-laptop)" in notice
    assert "SSH_AUTHORIZED_KEYS" in notice
    until(lambda: "lets nobody in (new-laptop)" in box.agent("keys").stderr, "the note of keys")

    def greeted() -> bool:
        # The shell may exit before it is greeted: then try another one.
        shell = box.ssh("-tt", input="exit\n", options=["-tt"])
        return "~/.ssh/authorized_keys lets nobody in (new-laptop)" in shell.stdout

    until(greeted, "the greeting with the note")


def test_a_pipe_in_the_place_of_the_homes_keys_holds_nobody_up(box: Box) -> None:
    ready(box)
    assert box.ssh("mkdir -p .ssh && mkfifo .ssh/authorized_keys && echo made").stdout == "made\n"
    assert box.ssh("echo in").stdout == "in\n"
