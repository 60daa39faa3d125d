"""Authorised keys, from the secrets of the machine.

Keys come from outside only: `SSH_AUTHORIZED_KEYS` and `SSH_AUTHORIZED_KEYS_<NAME>`. They are
written to a file of root's outside every home, so that nothing in the machine adds one by
itself. A bad line is told by source, number and reason, and never costs the good ones.
"""

import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.access.sshkey import TYPES, PublicKey, parse_public
from agent.platform.account import Account

VARIABLE = "SSH_AUTHORIZED_KEYS"

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
    """A line that is no usable key, and why."""

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.source} line {self.line}: {self.reason}"


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


def from_environment(environ: Mapping[str, str]) -> Keys:
    """All keys of the secrets, in the order of their variables' names."""
    usable: dict[bytes, AuthorizedKey] = {}
    bad: list[BadLine] = []
    for source in sorted(environ):
        if source != VARIABLE and not source.startswith(VARIABLE + "_"):
            continue
        owner = source[len(VARIABLE) + 1 :].lower()
        for number, line in enumerate(unwrap(environ[source]).split("\n"), 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            try:
                entry = _parse_line(text, owner, source, number)
            except ValueError as error:
                bad.append(BadLine(source, number, str(error)))
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
