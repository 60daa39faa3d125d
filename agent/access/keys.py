"""Authorised keys, from the secrets of the machine and a folder of root's.

Keys come from outside only: `SSH_AUTHORIZED_KEYS`, `SSH_AUTHORIZED_KEYS_<NAME>`, and the `.pub`
files of a folder that only root can write. They are written to a file of root's outside every home,
so that nothing in the machine adds one by itself. A bad line is told by source, number and reason,
and never costs the good ones.
"""

import binascii
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.access.sshkey import TYPES, PublicKey, parse_public
from agent.platform.account import Account

VARIABLE = "SSH_AUTHORIZED_KEYS"
SUFFIX = ".pub"
SIZE_LIMIT = 1 << 20

_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:=("(?:[^"\\]|\\.)*"|[^",\s]*))?(,|[ \t]+|$)')
_FLAGS = frozenset(
    "agent-forwarding port-forwarding pty user-rc x11-forwarding no-agent-forwarding "
    "no-port-forwarding no-pty no-user-rc no-x11-forwarding restrict cert-authority "
    "no-touch-required verify-required".split()
)
_LONGEST_OPTION = 30
_WITH_VALUE = frozenset(
    "command environment expiry-time from permitlisten permitopen principals tunnel".split()
)


@dataclass(frozen=True, slots=True)
class AuthorizedKey:
    """A key that may log in. `name` is the person's: the variable's suffix or the comment."""

    name: str
    key: PublicKey
    options: str
    comment: str
    source: str
    line: int

    def as_line(self) -> str:
        """The line of the keys file."""
        words = (self.options, self.key.type, self.key.base64, self.comment)
        return " ".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no usable key, and why; line 0 is the source as a whole."""

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        where = f"{self.source} line {self.line}" if self.line else self.source
        return f"{where}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys that were found, each once, and all lines that are none."""

    usable: tuple[AuthorizedKey, ...]
    bad: tuple[BadLine, ...]

    def name_of(self, fingerprint: str) -> str:
        """Whose key this is; empty when it is none of ours."""
        for entry in self.usable:
            if entry.key.fingerprint == fingerprint:
                return entry.name
        return ""


def find(environ: Mapping[str, str], folder: str) -> Keys:
    """All keys of the secrets, then those of the folder, each in the order of their names."""
    texts: list[_Text] = []
    bad: list[BadLine] = []
    for name in sorted(environ):
        if name == VARIABLE or name.startswith(VARIABLE + "_"):
            texts.append(_Text(name, name[len(VARIABLE) + 1 :].lower(), environ[name]))
    for path in _files(folder, bad):
        try:
            owner = os.path.basename(path).removesuffix(SUFFIX)
            texts.append(_Text(path, owner, _read_trusted(path)))
        except (OSError, ValueError) as error:
            bad.append(BadLine(path, 0, _reason(error)))
    return _parse(texts, bad)


@dataclass(frozen=True, slots=True)
class _Text:
    source: str
    owner: str
    text: str


def _files(folder: str, bad: list[BadLine]) -> list[str]:
    try:
        _require_trust(os.stat(folder))
        return sorted(f"{folder}/{name}" for name in os.listdir(folder) if name.endswith(SUFFIX))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        bad.append(BadLine(folder, 0, _reason(error)))
        return []


def _read_trusted(path: str) -> str:
    # Links are followed: only root could put one here, and mounted secrets are links.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        _require_trust(status)
        content = file.read(SIZE_LIMIT + 1)
    if len(content) > SIZE_LIMIT:
        raise ValueError(f"it is larger than {SIZE_LIMIT >> 20} MiB")
    return content.decode("utf-8")


def _require_trust(status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise ValueError(f"it belongs to uid {status.st_uid}: chown root")
    if status.st_mode & 0o022:
        raise ValueError("others can write it: chmod go-w")


def _reason(error: OSError | ValueError) -> str:
    said = error.strerror if isinstance(error, OSError) else None
    return said or str(error)


def _parse(texts: Iterable[_Text], bad: list[BadLine]) -> Keys:
    usable: dict[bytes, AuthorizedKey] = {}
    for each in texts:
        for number, line in enumerate(unwrap(each.text).split("\n"), 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            try:
                entry = _parse_line(text, each.owner, each.source, number)
            except ValueError as error:
                bad.append(BadLine(each.source, number, str(error)))
            else:
                usable.setdefault(entry.key.blob, entry)
    return Keys(tuple(usable.values()), tuple(bad))


def unwrap(value: str) -> str:
    """The lines of a secret, undoing what happens to it on the way.

    People paste keys with real line breaks, with `\\n` written out, inside quotes, from Windows
    files, and as base64 of the whole file.
    """
    text = value.strip().lstrip("\ufeff")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    text = text.replace("\\r", "").replace("\\n", "\n").replace("\r\n", "\n").replace("\r", "\n")
    return _from_base64(text) or text


def _from_base64(text: str) -> str | None:
    try:
        packed = "".join(text.split()).encode("ascii")
        decoded = binascii.a2b_base64(packed, strict_mode=True).decode("utf-8")
    except (ValueError, UnicodeError):
        return None
    looks_right = any(kind in decoded for kind in (*TYPES, "ssh-dss", "PRIVATE KEY"))
    return decoded.replace("\r\n", "\n") if looks_right else None


def _parse_line(text: str, owner: str, source: str, number: int) -> AuthorizedKey:
    if "PRIVATE KEY" in text:
        raise ValueError(
            "this is a private key: it is no secret any more, make a new pair "
            "and put the .pub file here"
        )
    if not text.isprintable():
        raise ValueError("it has control characters: copy the whole line again")
    options, rest = _split_options(text)
    words = rest.split(None, 2)
    if len(words) < 2:
        hint = "its type is missing" if text.startswith("AAAA") else "the key is missing"
        raise ValueError(f"{hint}: a line looks like ssh-ed25519 AAAA… name")
    key = parse_public(words[0], words[1])
    comment = words[2].strip() if len(words) > 2 else ""
    return AuthorizedKey(owner or comment or "unnamed", key, options, comment, source, number)


def _split_options(text: str) -> tuple[str, str]:
    """The options in front of a key (sshd(8), AUTHORIZED_KEYS FILE FORMAT), and the rest."""
    first = text.split(None, 1)[0]
    if first in TYPES or first == "ssh-dss" or first.startswith("AAAA"):
        return "", text
    position = 0
    while match := _OPTION.match(text, position):
        _check_option(match[1].lower(), match[2])
        position = match.end()
        if match[3] != ",":
            return text[:position].strip(), text[position:]
    raise ValueError("it does not begin with a key type, such as ssh-ed25519")


def _check_option(name: str, value: str | None) -> None:
    if name in _FLAGS and value is None:
        return
    if name in _WITH_VALUE and value is not None and value.startswith('"'):
        return
    if name in _WITH_VALUE:
        raise ValueError(f'the option {name} needs a value in quotes: {name}="…"')
    # A line of a private key looks like one long option: it must not be shown.
    shown = repr(name) if len(name) <= _LONGEST_OPTION else "(not shown)"
    raise ValueError(f"unknown key type or option {shown}")


def install(keys: Keys, path: str, account: Account) -> None:
    """Write the keys file as a whole: ours, and readable by the login account and nobody else.

    sshd reads it as that account. Raises `OSError`.
    """
    temporary = f"{path}.new"
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640
    )
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o640)
        os.fchown(descriptor, os.geteuid(), account.gid)
        file.writelines(entry.as_line() + "\n" for entry in keys.usable)
    os.rename(temporary, path)
