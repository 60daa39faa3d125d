"""SSH public keys and the host key's file, as bytes (RFC 4251, RFC 4253, PROTOCOL.key).

Only what the gate must know before sshd sees a key: its type, its strength, its fingerprint,
and whether the bytes are whole. No cryptography happens here.
"""

import binascii
import hashlib
from dataclasses import dataclass

MINIMUM_RSA_BITS = 2048
PRIVATE_BEGIN = b"-----BEGIN OPENSSH PRIVATE KEY-----"
PRIVATE_END = b"-----END OPENSSH PRIVATE KEY-----"

_PRIVATE_MAGIC = b"openssh-key-v1\0"
_ED25519_LENGTH = 32
_CURVES = {
    "ecdsa-sha2-nistp256": (b"nistp256", 65),
    "ecdsa-sha2-nistp384": (b"nistp384", 97),
    "ecdsa-sha2-nistp521": (b"nistp521", 133),
}
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
        """As it stands in a keys file."""
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
    """Reads the strings of a wire form; every length is checked against what is there."""

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
        raise ValueError(f"unknown key type {declared!r}: expected one of {', '.join(TYPES)}")
    try:
        blob = binascii.a2b_base64(base64.encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        raise ValueError(
            f"the key is not base64 ({base64[:16]}…): copy the whole line again"
        ) from None
    reader = _Reader(blob)
    actual = reader.string().decode("ascii", "replace")
    if actual != declared:
        raise ValueError(f"the line says {declared} but the key is {actual!r}")
    bits = _bits(declared, reader)
    if reader.rest():
        raise ValueError("there are extra bytes after the key: copy the whole line again")
    return PublicKey(declared, bits, blob)


def _bits(kind: str, reader: _Reader) -> int:
    security_key = kind.startswith("sk-")
    if kind == "ssh-rsa":
        reader.string()
        bits = int.from_bytes(reader.string(), "big").bit_length()
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
        if point[0] != curve or len(point[1]) != length or point[1][0] != 4:
            raise ValueError(f"the key is no point of {curve.decode()}: copy the whole line again")
        bits = {65: 256, 97: 384, 133: 521}[length]
    if security_key:
        reader.string()  # the application, such as "ssh:"
    return bits


def public_half(private: bytes) -> PublicKey:
    """The public half of an unencrypted Ed25519 key file, after checking that the file is whole.

    Both halves are in the file, the public one three times: a damaged file does not agree with
    itself. Raises `ValueError`.
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
