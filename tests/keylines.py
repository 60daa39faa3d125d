"""Random lines of an authorised-keys file, usual and malformed ones."""

import base64
import random
import struct
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CURVES = {"nistp256": ec.SECP256R1(), "nistp384": ec.SECP384R1(), "nistp521": ec.SECP521R1()}

OPTIONS = (
    "restrict,pty",
    "No-Pty", "no-x11-forwarding,no-agent-forwarding", "ptyx", "no-restrict", ",pty",
    "pty,", "pty,,user-rc", "verify-required", "no-touch-required", "cert-authority", "hello", "",
    'command="ls -l"', 'COMMAND="a"', "command=ls", 'command="a",command="b"',
    'command="never ends',
    'command="printf \'a\\nb\'"', 'command="say \\"hi, you\\""', 'command="back\\\\"', "command",
    'command="gr\u00fc\u00df \U0001f469\u200d\U0001f4bb"', 'environment="A=b c"', 'environment="A"',
    'environment="=x"', 'environment="A-B=x"', 'environment="A_1="',
    'from="10.0.0.0/8,!10.1.0.0/16"',
    'from="10.0.0.1/8"', 'from=""', 'from="a",from="b"', 'expiry-time="20990101"',
    'expiry-time="209901011200Z"', 'expiry-time="20990101120060utc"', 'expiry-time="20991301"',
    'expiry-time="2099"', 'expiry-time="19700101Z"', 'expiry-time="20990231"',
    'expiry-time="2099 1 1"',
    'expiry-time="20010101"', 'expiry-time="never"', 'expiry-time="99991231235959"',
    'permitopen="localhost:8080"', 'permitopen="[::1]:ssh"', 'permitopen="*:*"',
    'permitopen="8080"',
    'permitopen="h:0"', 'permitopen="h:70000"', 'permitopen="h/22"', 'permitopen="[::1"',
    'permitlisten="8080"', 'permitlisten="nosuchservice"', 'permitlisten="*:http"',
    'permitlisten="*"',
    'permitlisten=" +22"', 'tunnel="any"', 'tunnel="0"', 'tunnel="-1"', 'tunnel="x"',
    'tunnel="2147483645"', 'tunnel="2147483646"', 'principals="ann"',
    'cert-authority,principals="ann"',
    "agent-forwarding,port-forwarding,x11-forwarding", 'restrict="x"', "no-cert-authority",
)  # fmt: skip

COMMENTS = (
    "", "ann@laptop", "Zo\u00eb", "azuread\\nancy@LAPTOP", "no\u00a0break",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 x",
    "tab\there", 'a "quoted" name', "# hash", "trailing  ", "\u5c71\u7530",
    "\x1b[31mred", "bell\x07",
    "\u202egnol", "a\x0bb", "n\0ul", "x" * 300, "\u05d0\u05d1",
)  # fmt: skip

BLANKS = (" ", "\t", "  ", " \t ")


def wire(*parts: bytes) -> bytes:
    """Parts as strings of RFC 4251."""
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


class Lines:
    """Draws lines; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def draw(self) -> bytes:
        """One line without its end."""
        pick = self._random
        line = pick.choice(("", "", "", " ", "\t ")) + self._options()
        line += self._key() + pick.choice(("", pick.choice(BLANKS) + pick.choice(COMMENTS)))
        raw = line.encode() + pick.choice((b"", b"", b"", b"\r", b" ", b" J\xfcrgen"))
        if pick.random() < 0.05:
            at = pick.randrange(len(raw))
            raw = raw[:at] + pick.choice((b"\\", b'"', b",", b" ", b"=", b"A")) + raw[at + 1 :]
        return raw

    def _options(self) -> str:
        pick = self._random
        if pick.random() < 0.4:
            return ""
        chosen = [pick.choice(OPTIONS) for _ in range(pick.choice((1, 1, 1, 2, 3)))]
        return ",".join(chosen) + pick.choice(BLANKS)

    def _key(self) -> str:
        pick = self._random
        kind, blob = pick.choice((self._ed25519, self._ed25519, self._rsa, self._ecdsa, self._sk))()
        blob = pick.choice((*(8 * [blob]), blob[:-1], blob + b"\0", blob[:40]))
        text = base64.b64encode(blob).decode()
        if pick.random() < 0.2:
            text = self._spoil(text)
        if pick.random() < 0.06:
            kind = pick.choice(
                (
                    "ssh-dss",
                    "SSH-ED25519",
                    "ssh-rsa",
                    "ssh-foo",
                    "rsa-sha2-256",
                    "ssh-ed25519-cert-v01@openssh.com",
                )
            )
        return kind + pick.choice(BLANKS) + text

    def _spoil(self, text: str) -> str:
        pick = self._random
        at = pick.randrange(len(text))
        middle = pick.choice(("*", "\x0b", "\x0c", "\r", "=", "\u00e9", "-", ""))
        return pick.choice(
            (
                text[:at] + middle + text[at:],
                text[:-1],
                text.rstrip("="),
                text + "=",
                text[:-1] + "B",
            )
        )

    def _bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def _ed25519(self) -> tuple[str, bytes]:
        length = self._random.choice((*(9 * [32]), 31))
        return "ssh-ed25519", wire(b"ssh-ed25519", self._bytes(length))

    def _rsa(self) -> tuple[str, bytes]:
        bits = self._random.choice((1024, 2047, 2048, 2048, 3072, 4096, 16384, 16392))
        modulus = (
            (1 << (bits - 1)) | int.from_bytes(self._bytes(bits // 8 - 1), "big") | 1
        ).to_bytes((bits + 7) // 8, "big")
        sign = self._random.choice((*(9 * [b"\0"]), b"")) if modulus[0] > 127 else b""
        return "ssh-rsa", wire(b"ssh-rsa", b"\1\0\1", sign + modulus)

    def _ecdsa(self) -> tuple[str, bytes]:
        curve = self._random.choice(tuple(CURVES))
        name = f"ecdsa-sha2-{curve}"
        return name, wire(name.encode(), curve.encode(), self._point(curve))

    def _sk(self) -> tuple[str, bytes]:
        app = self._random.choice((b"ssh:", b"ssh:me", b"", b"a\0b"))
        if self._random.random() < 0.5:
            name = "sk-ssh-ed25519@openssh.com"
            return name, wire(name.encode(), self._bytes(32), app)
        name = "sk-ecdsa-sha2-nistp256@openssh.com"
        return name, wire(name.encode(), b"nistp256", self._point("nistp256"), app)

    def _point(self, curve: str) -> bytes:
        number = int.from_bytes(self._bytes(24), "big") + 1
        key = ec.derive_private_key(number, CURVES[curve]).public_key()
        point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        if self._random.random() < 0.1:
            return point[:-1] + bytes([point[-1] ^ 1])
        return point


def written(lines: Sequence[bytes]) -> bytes:
    """The text of a file with these lines, after a comment."""
    return b"".join(line + b"\n" for line in (b"# keys", *lines))
