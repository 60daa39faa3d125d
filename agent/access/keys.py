"""Authorised keys, from the secrets of the machine and a folder of root's.

Keys only come from outside: `SSH_AUTHORIZED_KEYS`, `SSH_AUTHORIZED_KEYS_<NAME>`, and the `.pub`
files of a folder that only root can write. They are written to a file of root's outside every home,
so that no program in the machine can add one. A line counts if sshd would accept it; any other line
is reported with source, number and reason, and does not affect the good ones.
"""

import binascii
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent import safe
from agent.access.sshkey import TYPES, PublicKey, parse_public
from agent.network import Network
from agent.platform.volume import is_safe_by_name
from agent.settings.files import listed

if TYPE_CHECKING:
    from agent.platform.account import Account

VARIABLE = "SSH_AUTHORIZED_KEYS"
SUFFIX = ".pub"
SIZE_LIMIT = 1 << 20
LONGEST_NAME = 80

_ALIASES = {
    "rsa-sha2-256": "ssh-rsa",
    "rsa-sha2-512": "ssh-rsa",
    "webauthn-sk-ecdsa-sha2-nistp256@openssh.com": "sk-ecdsa-sha2-nistp256@openssh.com",
}
"""Names of signature types, which sshd accepts as the type of the key."""

_CERTIFICATE = "-cert-v01@openssh.com"
_DSA = "ssh-dss"
_BLANKS = " \t"
_WRITTEN_BREAK = re.compile(r"(?:\\r)?\\n|\r")
_KEY = re.compile(r"[\w.@-]+[ \t]+AAAA[A-Za-z0-9+/]{4}", re.ASCII)
_BLANK = re.compile(r"[ \t]+")
_ARMOUR = ("-----BEGIN ", "---- BEGIN ")


@dataclass(frozen=True, slots=True)
class AuthorizedKey:
    """A key that may log in. `name` is the person's: the variable's suffix or the comment.

    `expires` (Unix time) and `sources` (the value of `from`) are among its options.
    """

    name: str
    key: PublicKey
    options: str
    comment: str
    source: str
    line: int
    expires: float | None = None
    sources: str | None = None

    def as_line(self) -> str:
        """The line of the keys file; bytes that are not UTF-8 are surrogates."""
        words = (self.options, self.key.type, self.key.base64, self.comment)
        return " ".join(word for word in words if word)

    def lets_nobody_in(self, now: float, seen: tuple[Network, ...] | None) -> str:
        """Why no login with it can succeed; empty if one can.

        `now` is Unix time, `seen` the addresses that sshd sees connections from (None: any).
        """
        if self.expires is not None and self.expires < now:
            return f"it has expired ({self.options})"
        if self.sources is not None:
            from agent.access.keyoptions import may_match

            if not may_match(self.sources, seen):
                proxy = "" if seen is None else f", sshd sees {', '.join(map(str, seen))}"
                return f'from="{self.sources}" never matches{proxy}'
        return ""


@dataclass(frozen=True, slots=True)
class LineReport:
    """A remark about a line; line 0 means the whole source."""

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        where = f"{self.source} line {self.line}" if self.line else self.source
        return f"{where}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Keys:
    """All usable keys, all unusable lines, and remarks about the usable keys."""

    usable: tuple[AuthorizedKey, ...]
    bad: tuple[LineReport, ...]
    odd: tuple[LineReport, ...] = ()

    def name_of(self, fingerprint: str) -> str:
        """The owner of this key; empty if it is not one of ours."""
        for entry in self.usable:
            if entry.key.fingerprint == fingerprint:
                return entry.name
        return ""


def find(environ: Mapping[str, str], folder: str) -> Keys:
    """All keys of the secrets, then those of the folder, each in the order of their names.

    If a secret is the path of a file, the file's content counts.
    """
    texts: list[_Text] = []
    bad: list[LineReport] = []
    for name in sorted(environ):
        if name == VARIABLE or name.startswith(VARIABLE + "_"):
            owner = name[len(VARIABLE) + 1 :].lower()
            path = _path_in(environ[name])
            if not path:
                texts.append(_Text(name, owner, environ[name]))
            else:
                named = f"{name}={safe.line(path)}"
                _read(path, named, "" if owner == "file" else owner, texts, bad, above=True)
    for path in _files(folder, bad):
        owner = safe.line(os.path.basename(path).removesuffix(SUFFIX), LONGEST_NAME)
        _read(path, safe.line(path), owner, texts, bad)
    return _parse(texts, bad)


@dataclass(frozen=True, slots=True)
class _Text:
    source: str
    owner: str
    text: str
    is_file: bool = False


def _path_in(value: str) -> str:
    words = value.split()
    return words[0] if len(words) == 1 and words[0].startswith("/") else ""


def _read(
    path: str,
    source: str,
    owner: str,
    texts: list[_Text],
    bad: list[LineReport],
    *,
    above: bool = False,
) -> None:
    """Add the text of a file; with `above`, the folders above it must be trusted as well."""
    try:
        if above and not is_safe_by_name(os.path.dirname(os.path.realpath(path))):
            reason = "other accounts can replace it: keep it in a folder of root's"
            bad.append(LineReport(source, 0, reason))
        else:
            texts.append(_Text(source, owner, _read_trusted(path), is_file=True))
    except (OSError, ValueError) as error:
        bad.append(LineReport(source, 0, _reason(error)))


def _files(folder: str, bad: list[LineReport]) -> list[str]:
    try:
        _require_trust(os.stat(folder))
        return listed(folder, SUFFIX)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        bad.append(LineReport(folder, 0, _reason(error)))
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
    return decode(content)


def decode(content: bytes) -> str:
    """The text of a keys file: UTF-8, or UTF-16 as Windows' shell writes it.

    Other bytes are kept (as surrogates): sshd ignores them too. Raises `ValueError`.
    """
    try:
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return content.decode("utf-16")
        if content[1:2] == b"\0" or content[:1] == b"\0":
            return content.decode("utf-16-le" if content[1:2] == b"\0" else "utf-16-be")
    except UnicodeDecodeError as error:
        raise ValueError("it is neither UTF-8 nor UTF-16: save it as UTF-8") from error
    return content.decode("utf-8-sig", "surrogateescape")


def _require_trust(status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise ValueError(f"it belongs to uid {status.st_uid}: chown root")
    if status.st_mode & 0o022:
        raise ValueError("other accounts can write it: chmod go-w")


def _reason(error: OSError | ValueError) -> str:
    said = error.strerror if isinstance(error, OSError) else None
    return said or str(error)


def parse(content: bytes, source: str) -> Keys:
    """The keys of one file's content, whoever wrote it."""
    try:
        text = decode(content)
    except ValueError as error:
        return Keys((), (LineReport(source, 0, str(error)),))
    return _parse([_Text(source, "", text)], [])


def _parse(texts: Iterable[_Text], bad: list[LineReport]) -> Keys:
    usable: list[AuthorizedKey] = []
    odd: list[LineReport] = []
    first: dict[bytes, AuthorizedKey] = {}
    seen: set[tuple[bytes, str]] = set()
    for each in texts:
        found_any = False
        for number, text in _lines(unwrap(each.text)):
            found_any = True
            try:
                entry = _parse_line(text, each.owner, each.source, number)
            except ValueError as error:
                bad.append(LineReport(each.source, number, str(error)))
                continue
            before = first.setdefault(entry.key.blob, entry)
            if before is not entry:
                odd.append(LineReport(each.source, number, _about_double(before, entry)))
            if (entry.key.blob, entry.options) not in seen:
                seen.add((entry.key.blob, entry.options))
                usable.append(entry)
        if each.is_file and not found_any:
            bad.append(LineReport(each.source, 0, "it has no key"))
    return Keys(tuple(usable), tuple(bad), tuple(odd))


def _about_double(before: AuthorizedKey, entry: AuthorizedKey) -> str:
    where = f"the key of {before.source} line {before.line}"
    if before.options == entry.options:
        return f"{where} again"
    return f"{where} with other options: the first line whose options allow a login counts"


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that should be keys, numbered from 1; only the first line of an armoured key."""
    end = ""
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.partition("\0")[0].strip().lstrip("\ufeff")
        if end:
            end = "" if stripped.startswith(end) else end
        elif stripped and not stripped.startswith("#"):
            if stripped.startswith(_ARMOUR):
                end = stripped[: stripped.index("B")] + "END "
            yield number, stripped


def unwrap(value: str) -> str:
    """The lines of a secret, after undoing common damage.

    People paste keys with real line breaks, with a literal `\\n`, inside quotes, from Windows
    files, and as base64 of the whole file.
    """
    text = value.strip().lstrip("\ufeff")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    text = _from_base64(text) or text
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(part for line in lines for part in _split_written_breaks(line))


def _split_written_breaks(line: str) -> list[str]:
    """The lines in one line: `\\n` is a line break only if another line begins after it.

    Otherwise it is part of a name (`corp\\nancy`) or of a command.
    """
    parts = []
    start = 0
    while match := _next_break(line, start):
        parts.append(line[start : match.start()])
        start = match.end()
    return [*parts, line[start:]]


def _next_break(line: str, start: int) -> "re.Match[str] | None":
    position = start
    while match := _WRITTEN_BREAK.search(line, position):
        # A `\n` within the options belongs to them.
        options = start if _KEY.match(line, _skip_blanks(line, start)) else _end_of(line, start)
        if match.start() < options < len(line):
            position = options
        elif _begins_a_line(line, match.end()):
            return match
        else:
            position = match.end()
    return None


def _begins_a_line(line: str, start: int) -> bool:
    start = _skip_blanks(line, start)
    if start == len(line) or line.startswith(("#", *_ARMOUR), start) or _KEY.match(line, start):
        return True
    if _WRITTEN_BREAK.match(line, start):
        return True
    return _KEY.match(line, _skip_blanks(line, _end_of(line, start))) is not None


def _skip_blanks(line: str, start: int) -> int:
    while start < len(line) and line[start] in _BLANKS:
        start += 1
    return start


def _end_of(line: str, start: int) -> int:
    from agent.access.keyoptions import end_of

    return end_of(line, start)


def _from_base64(text: str) -> str | None:
    try:
        packed = "".join(text.split()).encode("ascii")
        decoded = decode(binascii.a2b_base64(packed, strict_mode=True))
    except (ValueError, UnicodeError):
        return None
    looks_right = any(kind in decoded for kind in (*TYPES, _DSA, "PRIVATE KEY"))
    return decoded if looks_right else None


def _parse_line(text: str, owner: str, source: str, number: int) -> AuthorizedKey:
    _refuse_other_forms(text)
    options, rest = _split_options(text)
    expires, sources = _bounds(options)
    words = _words(rest)
    if len(words) < 2:
        hint = "its type is missing" if text.startswith("AAAA") else "the key is missing"
        raise ValueError(f"{hint}: a line looks like ssh-ed25519 AAAA… name")
    if words[0].endswith(_CERTIFICATE):
        raise ValueError(
            "this is a certificate, which a client presents at login: put the public key of its "
            "signer here, with cert-authority in front"
        )
    key = parse_public(_ALIASES.get(words[0], words[0]), words[1])
    comment = words[2].strip() if len(words) > 2 else ""
    name = owner or safe.line(comment, LONGEST_NAME) or "unnamed"
    return AuthorizedKey(
        name, key, options, safe.line(comment), source, number, expires=expires, sources=sources
    )


def _bounds(options: str) -> tuple[float | None, str | None]:
    """The expiry and the `from` of a key with these options. Raises `ValueError`."""
    if not options:
        return None, None
    from agent.access import keyoptions

    read = keyoptions.parse(options)
    return read.expires, read.sources


def _refuse_other_forms(text: str) -> None:
    if "PRIVATE KEY" in text or text.startswith("PuTTY-User-Key-File"):
        raise ValueError(
            "this is a private key: it is no longer secret, create a new pair and put the .pub "
            "file here"
        )
    if text.startswith(_ARMOUR):
        raise ValueError("this is a key in another form: ssh-keygen -i -f FILE converts it")
    if text.startswith(("https://", "http://")):
        raise ValueError("this is a web address: put the lines found there here")


def _words(rest: str) -> list[str]:
    """Type, key and comment, separated as sshd does: only by spaces and tabs."""
    return [word for word in _BLANK.split(rest, maxsplit=2) if word]


def _split_options(text: str) -> tuple[str, str]:
    """The options in front of a key (sshd(8), AUTHORIZED_KEYS FILE FORMAT), and the rest."""
    first = _words(text)[0]
    known = first in TYPES or first in _ALIASES or first == _DSA or first.endswith(_CERTIFICATE)
    if known or first.startswith("AAAA"):
        return "", text
    end = _end_of(text, 0)
    return text[:end], text[_skip_blanks(text, end) :]


def install(keys: Keys, path: str, account: "Account") -> None:
    """Replace the keys file: it belongs to us, and only the login account can read it.

    sshd reads it as that account. Raises `OSError`.
    """
    temporary = f"{path}.new"
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640
    )
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(descriptor, 0o640)
        os.fchown(descriptor, os.geteuid(), account.gid)
        file.writelines(entry.as_line() + "\n" for entry in keys.usable)
    os.rename(temporary, path)
