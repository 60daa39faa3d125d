import base64
import os
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.access import sshkey
from agent.access.keys import Keys, find, unwrap
from tests.support import make_key


def from_environment(environ: dict[str, str]) -> Keys:
    return find(environ, "/no/such/folder")


def wire(*parts: bytes) -> str:
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return base64.b64encode(blob).decode()


def rsa(bits: int) -> str:
    modulus = b"\0" + ((1 << (bits - 1)) | 1).to_bytes((bits + 7) // 8, "big")
    return "ssh-rsa " + wire(b"ssh-rsa", b"\x01\x00\x01", modulus)


ED25519 = "ssh-ed25519 " + wire(b"ssh-ed25519", bytes(32))


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        (("-t", "ed25519"), 256),
        (("-t", "rsa", "-b", "2048"), 2048),
        (("-t", "ecdsa", "-b", "256"), 256),
        (("-t", "ecdsa", "-b", "384"), 384),
        (("-t", "ecdsa", "-b", "521"), 521),
    ],
)
def test_keys_of_ssh_keygen_have_its_fingerprints(
    tmp_path: Path, options: tuple[str, ...], bits: int
) -> None:
    key = make_key(tmp_path / "id", *options)
    [entry] = from_environment({"SSH_AUTHORIZED_KEYS": key.public}).usable
    assert entry.key.fingerprint == key.fingerprint
    assert entry.key.bits == bits
    assert entry.as_line() == key.public


def test_security_keys_are_accepted() -> None:
    text = "sk-ssh-ed25519@openssh.com " + wire(b"sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:")
    [entry] = from_environment({"SSH_AUTHORIZED_KEYS": text}).usable
    assert entry.key.bits == 256


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (rsa(1024), "RSA with 1024 bits is too short"),
        (rsa(2047), "RSA with 2047 bits is too short"),
        ("ssh-dss " + wire(b"ssh-dss"), "DSA keys are broken"),
        ("ssh-ed25519 AAAA*", "not base64"),
        ("ssh-ed25519", "the key is missing"),
        (ED25519.split()[1], "its type is missing"),
        (ED25519[:-8], "cut off"),
        ("ssh-ed25519 " + wire(b"ssh-ed25519", bytes(31)), "wrong length"),
        ("ssh-ed25519 " + wire(b"ssh-ed25519", bytes(32), b"x"), "extra bytes"),
        ("ssh-ed25519 " + wire(b"ssh-rsa", bytes(32)), "the line says ssh-ed25519"),
        ("ecdsa-sha2-nistp256 " + wire(b"ecdsa-sha2-nistp256", b"nistp384", b"\4" + bytes(64)),
         "not a point"),
        ("ssh-foo AAAA", "unknown key type or option 'ssh-foo'"),
        ("hello", "unknown key type or option 'hello'"),
        ("command=ls " + ED25519, "needs a value in quotes"),
        ("no-such-option " + ED25519, "unknown key type or option 'no-such-option'"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
        ("ssh-ed25519\x07 AAAA", "unknown key type or option 'ssh-ed25519\\x07'"),
    ],
)  # fmt: skip
def test_bad_lines_say_what_is_wrong(line: str, reason: str) -> None:
    keys = from_environment({"SSH_AUTHORIZED_KEYS": f"{ED25519} good\n{line}"})
    assert len(keys.usable) == 1
    [bad] = keys.bad
    assert bad.line == 2
    assert reason in bad.reason
    assert len(bad.reason) < 300


def test_rsa_of_2048_bits_is_accepted() -> None:
    assert len(from_environment({"SSH_AUTHORIZED_KEYS": rsa(2048)}).usable) == 1


@pytest.mark.parametrize(
    "options",
    [
        "restrict,pty",
        'command="echo \\"a, b\\" c",no-pty',
        'from="10.0.0.0/8,!10.1.0.0/16"',
        'environment="A=b c",restrict',
        "No-Pty",
    ],
)
def test_options_are_kept(options: str) -> None:
    [entry] = from_environment({"SSH_AUTHORIZED_KEYS": f"{options} {ED25519} me"}).usable
    assert entry.options == options
    assert entry.as_line() == f"{options} {ED25519} me"


def test_ssh_keygen_reads_the_line_that_is_written(tmp_path: Path) -> None:
    """ssh-keygen reads keys files with sshd's own code: the quotes of a command survive."""
    line = f'restrict,pty,command="echo \\"a, b\\"" {ED25519} me'
    [entry] = from_environment({"SSH_AUTHORIZED_KEYS": line}).usable
    assert entry.as_line() == line
    path = tmp_path / "authorized_keys"
    path.write_text(entry.as_line() + "\n")
    out = subprocess.run(
        ["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True
    )
    assert entry.key.fingerprint in out.stdout


def test_a_key_that_is_given_twice_is_one_key() -> None:
    keys = from_environment(
        {"SSH_AUTHORIZED_KEYS": f"{ED25519} a\n{ED25519} b", "SSH_AUTHORIZED_KEYS_C": ED25519}
    )
    assert [entry.name for entry in keys.usable] == ["a"]


def test_names_come_from_variable_then_comment() -> None:
    assert from_environment({"SSH_AUTHORIZED_KEYS_ANN": f"{ED25519} x"}).usable[0].name == "ann"
    assert from_environment({"SSH_AUTHORIZED_KEYS": f"{ED25519} a b"}).usable[0].name == "a b"
    assert from_environment({"SSH_AUTHORIZED_KEYS": ED25519}).usable[0].name == "unnamed"
    assert not from_environment({"SSH_AUTHORIZED_KEYSX": ED25519, "OTHER": ED25519}).usable


@given(st.text().filter(lambda text: not text.strip().startswith("/")))  # no path of a file
def test_no_secret_breaks_the_parser(text: str) -> None:
    keys = from_environment({"SSH_AUTHORIZED_KEYS": text})
    lines = unwrap(text).split("\n")
    assert len(keys.usable) + len(keys.bad) <= len(lines)
    for entry in keys.usable:
        assert "\n" not in entry.as_line()


@given(st.binary(max_size=200))
def test_no_blob_breaks_the_parser(blob: bytes) -> None:
    text = base64.b64encode(struct.pack(">I", 11) + b"ssh-ed25519" + blob).decode()
    try:
        key = sshkey.parse_public("ssh-ed25519", text)
    except ValueError:
        return
    assert key.base64 == text


@given(st.integers(0, 410), st.integers(0, 255))
def test_a_changed_byte_of_a_host_key_is_noticed_or_harmless(position: int, value: int) -> None:
    """Damage never raises anything but ValueError, and never gives another public key."""
    text = HOST_KEY
    damaged = text[:position] + bytes([value]) + text[position + 1 :]
    try:
        key = sshkey.public_half(damaged)
    except ValueError:
        return
    assert key == sshkey.public_half(text)


def _host_key() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return make_key(Path(folder) / "id").path.read_bytes()


HOST_KEY = _host_key()


def test_public_half_is_the_one_ssh_keygen_wrote(tmp_path: Path) -> None:
    key = make_key(tmp_path / "id")
    assert sshkey.public_half(key.path.read_bytes()).fingerprint == key.fingerprint


def test_encrypted_host_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "id"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(path)]
    subprocess.run(command, check=True)
    with pytest.raises(ValueError, match="encrypted"):
        sshkey.public_half(path.read_bytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "keys.d"
    path.mkdir(mode=0o755)
    return path


def test_keys_of_the_folder_are_named_by_their_files(folder: Path) -> None:
    (folder / "alice.pub").write_text(ED25519 + " laptop\n")
    (folder / "notes.txt").write_text("no key\n")
    found = find({}, str(folder))
    assert [entry.name for entry in found.usable] == ["alice"]
    assert found.bad == ()


def test_what_others_can_write_is_no_key_and_costs_the_rest_nothing(folder: Path) -> None:
    (folder / "alice.pub").write_text(ED25519)
    (folder / "open.pub").write_text(rsa(2048))
    (folder / "open.pub").chmod(0o666)
    (folder / "fifo.pub").mkdir()
    (folder / "binary.pub").write_bytes(b"\xff\xfe")
    found = find({}, str(folder))
    assert [entry.name for entry in found.usable] == ["alice"]
    reasons = {Path(bad.source).name: str(bad).partition(": ")[2] for bad in found.bad}
    assert reasons["open.pub"] == "other accounts can write it: chmod go-w"
    assert reasons["fifo.pub"] == "Is a directory"
    assert "binary.pub" in reasons


def test_a_folder_that_others_can_write_has_no_keys(folder: Path) -> None:
    (folder / "alice.pub").write_text(ED25519)
    folder.chmod(0o777)
    found = find({}, str(folder))
    assert found.usable == ()
    assert "other accounts can write it" in str(found.bad[0])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a file of somebody else")
def test_a_key_of_the_login_account_is_no_key(folder: Path) -> None:
    (folder / "mine.pub").write_text(ED25519)
    os.chown(folder / "mine.pub", 1000, 1000)
    found = find({}, str(folder))
    assert found.usable == ()
    assert "belongs to uid 1000" in str(found.bad[0])
