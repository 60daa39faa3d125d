"""SSH public keys and the host key's file, as bytes (RFC 4251, RFC 4253, PROTOCOL.key).

Only the properties that the agent needs before sshd sees a key: its type, strength and fingerprint,
and whether it is complete. No cryptography happens here.
"""

import binascii
import hashlib
from dataclasses import dataclass

MINIMUM_RSA_BITS = 2048
MAXIMUM_RSA_BITS = 16384
PRIVATE_BEGIN = b"-----BEGIN OPENSSH PRIVATE KEY-----"
PRIVATE_END = b"-----END OPENSSH PRIVATE KEY-----"

_PRIVATE_MAGIC = b"openssh-key-v1\0"
_ED25519_LENGTH = 32
_CURVES = {
    "ecdsa-sha2-nistp256": (b"nistp256", 65),
    "ecdsa-sha2-nistp384": (b"nistp384", 97),
    "ecdsa-sha2-nistp521": (b"nistp521", 133),
}
_EQUATIONS = {
    65: (
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    ),
    97: (
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
    ),
    133: (
        2**521 - 1,
        0x0051953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E156193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
    ),
}
"""By the length of a point: p and b of y² = x³ - 3x + b modulo p (SEC 2)."""

_SHOWN = 16
TYPES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    *_CURVES,
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that sshd will accept: `blob` is its wire form, `bits` its size."""

    type: str
    bits: int
    blob: bytes

    @property
    def base64(self) -> str:
        """The key in base64, as in a keys file."""
        return binascii.b2a_base64(self.blob, newline=False).decode("ascii")

    @property
    def fingerprint(self) -> str:
        """As sshd and `ssh-keygen -l` print it: `SHA256:` and base64 without padding."""
        return fingerprint(self.blob)


def fingerprint(blob: bytes) -> str:
    """The SHA-256 fingerprint of a key's wire form."""
    digest = binascii.b2a_base64(hashlib.sha256(blob).digest(), newline=False)
    return "SHA256:" + digest.decode("ascii").rstrip("=")


class _Reader:
    """Reads the strings of a wire form; every length is checked against the data."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, length: int) -> bytes:
        end = self._position + length
        if end > len(self._data):
            raise ValueError("the key is cut off: copy the whole line again")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.number())

    def rest(self) -> bytes:
        return self._data[self._position :]


def parse_public(declared: str, base64: str) -> PublicKey:
    """A public key from the two words of a keys-file line.

    Raises `ValueError` saying what is wrong and what to do.
    """
    if declared == "ssh-dss":
        raise ValueError("DSA keys are broken: make a new one with ssh-keygen -t ed25519")
    if declared not in TYPES:
        shown = ascii(declared[: 2 * _SHOWN])
        raise ValueError(f"unknown key type {shown}: expected one of {', '.join(TYPES)}")
    blob = _from_base64(base64)
    reader = _Reader(blob)
    actual = reader.string().decode("ascii", "replace")
    if actual != declared:
        raise ValueError(f"the line says {declared} but the key is {actual!r}")
    bits = _bits(declared, reader)
    if reader.rest():
        raise ValueError("there are extra bytes after the key: copy the whole line again")
    return PublicKey(declared, bits, blob)


def _from_base64(text: str) -> bytes:
    # sshd's decoder skips the white space of C, and accepts no extra bits at the end.
    packed = "".join(letter for letter in text if letter not in "\v\f\r")
    try:
        blob = binascii.a2b_base64(packed.encode("ascii"), strict_mode=True)
    except ValueError:
        blob = b""
    if not blob or binascii.b2a_base64(blob, newline=False).decode("ascii") != packed:
        shown = ascii(text[:_SHOWN])[1:-1]
        raise ValueError(f"the key is not base64 ({shown}…): copy the whole line again")
    return blob


def _bits(kind: str, reader: _Reader) -> int:
    security_key = kind.startswith("sk-")
    if kind == "ssh-rsa":
        exponent, modulus = reader.string(), reader.string()
        if exponent[:1] > b"\x7f" or modulus[:1] > b"\x7f":
            raise ValueError("the key has a negative number: copy the whole line again")
        bits = int.from_bytes(modulus, "big").bit_length()
        if max(bits, 8 * len(exponent)) > MAXIMUM_RSA_BITS:
            raise ValueError(f"RSA with more than {MAXIMUM_RSA_BITS} bits is refused by sshd")
        if bits < MINIMUM_RSA_BITS:
            raise ValueError(
                f"RSA with {bits} bits is too short (at least {MINIMUM_RSA_BITS}): "
                "make a new key with ssh-keygen -t ed25519"
            )
        return bits
    if "ed25519" in kind:
        if len(reader.string()) != _ED25519_LENGTH:
            raise ValueError("the key has the wrong length: copy the whole line again")
        bits = 256
    else:
        curve, length = _CURVES[kind.removeprefix("sk-").removesuffix("@openssh.com")]
        point = (reader.string(), reader.string())
        is_point = point[0] == curve and len(point[1]) == length and point[1][0] == 4
        if not is_point or not _is_on_curve(point[1]):
            raise ValueError(
                f"the key is not a point of {curve.decode()}: copy the whole line again"
            )
        bits = {65: 256, 97: 384, 133: 521}[length]
    if security_key and b"\0" in reader.string():  # the application, such as "ssh:"
        raise ValueError("the key's application is not text: copy the whole line again")
    return bits


def _is_on_curve(point: bytes) -> bool:
    prime, b = _EQUATIONS[len(point)]
    half = len(point) // 2
    x, y = (int.from_bytes(point[at : at + half], "big") for at in (1, 1 + half))
    return max(x, y) < prime and (y * y - x * x * x + 3 * x - b) % prime == 0


def public_half(private: bytes) -> PublicKey:
    """The public half of an unencrypted Ed25519 key file, after checking that the file is whole.

    Both halves are in the file, the public one three times: a mismatch shows that it is damaged.
    Raises `ValueError`.
    """
    body = private.strip()
    if not body.startswith(PRIVATE_BEGIN) or not body.endswith(PRIVATE_END):
        raise ValueError("it is not an OpenSSH private key")
    inner = body[len(PRIVATE_BEGIN) : -len(PRIVATE_END)]
    try:
        data = binascii.a2b_base64(b"".join(inner.split()), strict_mode=True)
    except ValueError:
        raise ValueError("it is not base64") from None
    reader = _Reader(data)
    if reader.take(len(_PRIVATE_MAGIC)) != _PRIVATE_MAGIC:
        raise ValueError("it is not an OpenSSH private key")
    cipher, kdf, _ = reader.string(), reader.string(), reader.string()
    if (cipher, kdf) != (b"none", b"none") or reader.number() != 1:
        raise ValueError("it is encrypted or holds several keys")
    blob = reader.string()
    key = parse_public("ssh-ed25519", binascii.b2a_base64(blob, newline=False).decode("ascii"))
    _check_private(_Reader(reader.string()), blob)
    return key


def _check_private(reader: _Reader, blob: bytes) -> None:
    point = blob[-_ED25519_LENGTH:]
    if reader.number() != reader.number():
        raise ValueError("its check numbers differ")
    if reader.string() != b"ssh-ed25519" or reader.string() != point:
        raise ValueError("its halves do not belong together")
    secret = reader.string()
    if len(secret) != 2 * _ED25519_LENGTH or secret[_ED25519_LENGTH:] != point:
        raise ValueError("its halves do not belong together")
    reader.string()  # the comment
    padding = reader.rest()
    if padding != bytes(range(1, len(padding) + 1)):
        raise ValueError("its end is damaged")
