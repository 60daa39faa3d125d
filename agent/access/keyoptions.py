"""Options in front of an authorised key, read as sshd reads them (auth-options.c of OpenSSH).

sshd skips a line whose options it does not understand, and reports that at its debug level only.
Here such a line is refused with a reason.
"""

import re
import socket
import time
from dataclasses import dataclass

from agent.network import Network

_FLAGS = {
    "restrict": False,
    "cert-authority": False,
    "port-forwarding": True,
    "agent-forwarding": True,
    "x11-forwarding": True,
    "touch-required": True,
    "verify-required": True,
    "pty": True,
    "user-rc": True,
}
"""Options without a value, and whether `no-` may precede them."""

_ONCE = ("command", "principals", "from")
_VALUES = (*_ONCE, "expiry-time", "environment", "permitopen", "permitlisten", "tunnel")
_MOST = {"environment": 1025, "permitopen": 4097, "permitlisten": 4097}
_LONGEST_HOST = 1024
_LONGEST_SHOWN = 30
_TUNNELS = range(0x7FFFFFFE)
_NUMBER = re.compile(r"[ \t\n\v\f\r]*[+-]?\d+", re.ASCII)
_TIME = re.compile(r"(.{4})(.{2})(.{2})(?:(.{2})(.{2})(.{2})?)?", re.DOTALL)
_FIELD = re.compile(r"[ \t\n\v\f\r]*\d+", re.ASCII)
_ADDRESS_PATTERN = re.compile(r"[0-9a-fA-F.:*?]+")


@dataclass(frozen=True, slots=True)
class Options:
    """Options that limit who may log in. `expires` is Unix time; `sources` the value of `from`."""

    authority: bool = False
    expires: float | None = None
    sources: str | None = None


def end_of(text: str, start: int = 0) -> int:
    """Where the options that begin at `start` end: at the first blank outside of quotes.

    The length of `text` where there is none.
    """
    quoted = False
    position = start
    while position < len(text) and (quoted or text[position] not in " \t"):
        if text.startswith('\\"', position):
            position += 1
        elif text[position] == '"':
            quoted = not quoted
        position += 1
    return min(position, len(text))


def parse(text: str) -> Options:
    """The options of one line. Raises `ValueError` saying what sshd would not understand."""
    seen: dict[str, int] = {}
    authority, expires, sources = False, None, None
    rest = text
    while rest:
        name, value, rest = _take(rest)
        seen[name] = seen.get(name, 0) + 1
        if name in _ONCE and seen[name] > 1:
            raise ValueError(f"the option {name} is given twice")
        if seen[name] > _MOST.get(name, seen[name]):
            raise ValueError(f"the option {name} is given too often")
        _check(name, value)
        if name == "cert-authority":
            authority = True
        elif name == "from":
            sources = value
        elif name == "expiry-time":
            expires = min(_time(value), expires or float("inf"))
        if rest and rest[0] != ",":
            raise ValueError(_unknown(text))
        rest = rest[1:]
    if "principals" in seen and not authority:
        raise ValueError("the option principals is for a cert-authority: sshd refuses the key")
    return Options(authority, expires, sources)


def _take(rest: str) -> tuple[str, str, str]:
    """The option at the beginning, its value, and what comes after it."""
    lower = rest[:32].lower()
    for flag, may_be_negated in _FLAGS.items():
        for name in (flag, f"no-{flag}") if may_be_negated else (flag,):
            if lower.startswith(name):
                return name, "", rest[len(name) :]
    for name in _VALUES:
        if lower.startswith(name + "="):
            value, after = _dequote(name, rest[len(name) + 1 :])
            return name, value, after
    return "", "", rest


def _dequote(name: str, text: str) -> tuple[str, str]:
    if not text.startswith('"'):
        raise ValueError(f'the option {name} needs a value in quotes: {name}="…"')
    letters = []
    position = 1
    while position < len(text) and text[position] != '"':
        if text.startswith('\\"', position):
            position += 1
        letters.append(text[position])
        position += 1
    if position >= len(text):
        raise ValueError(f"the quotes of the option {name} are not closed")
    return "".join(letters), text[position + 1 :]


def _check(name: str, value: str) -> None:
    if name == "environment":
        variable, equals, _ = value.partition("=")
        if not equals or not re.fullmatch(r"\w+", variable, re.ASCII):
            raise ValueError('the option environment needs a name and a value: environment="A=b"')
    elif name in ("permitopen", "permitlisten"):
        bare = name == "permitlisten" and ":" not in value
        if not _is_place(f"*:{value}" if bare else value):
            raise ValueError(f'the option {name} needs host and port: {name}="localhost:8080"')
    elif name == "tunnel" and value.lower() != "any" and not _is_number(value, _TUNNELS):
        raise ValueError('the option tunnel needs a number or "any"')


def _is_place(text: str) -> bool:
    # hpdelim2() and a2port() in misc.c: services have names, and a "/" separates as well.
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        host += bracket
    else:
        host = re.split("[:/]", text, maxsplit=1)[0]
        rest, bracket = text[len(host) :], "]"
    if not bracket or rest[:1] not in (":", "/") or len(host) > _LONGEST_HOST:
        return False
    port = rest[1:]
    if port == "*" or _is_number(port, range(1, 65536)):
        return True
    try:
        return socket.getservbyname(port, "tcp") > 0
    except (OSError, ValueError):
        return False


def _is_number(text: str, allowed: range) -> bool:
    return _NUMBER.fullmatch(text) is not None and int(text) in allowed


def _time(text: str) -> float:
    """Unix time of `YYYYMMDD[HHMM[SS]][Z]`, in the machine's time zone without the `Z`."""
    upper = text.upper()
    # As parse_absolute_time() in misc.c: a date that is nothing but "UTC" has no zone.
    zone = next((z for z in ("Z", "UTC") if len(text) > len(z) and upper.endswith(z)), "")
    match = _TIME.fullmatch(text[: len(text) - len(zone)])
    fields = [field for field in (match.groups() if match else ()) if field is not None]
    if not fields or not all(map(_FIELD.fullmatch, fields)):
        raise ValueError(_NO_TIME)
    year, month, day, hour, minute, second = [int(field) for field in fields] + [0] * (
        6 - len(fields)
    )
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 61):
        raise ValueError(_NO_TIME)
    try:
        if zone:
            from calendar import timegm

            found = float(timegm((year, month, day, hour, minute, second)))
        else:
            found = time.mktime((year, month, day, hour, minute, second, 0, 0, 0))
    except (OverflowError, ValueError):
        raise ValueError(_NO_TIME) from None
    if found <= 0:
        raise ValueError(_NO_TIME)
    return found


_NO_TIME = 'the option expiry-time needs a date: expiry-time="20301231"'


def _unknown(text: str) -> str:
    # A line of a private key looks like one long option: it must not be shown.
    name = re.split("[=, \t]", text, maxsplit=1)[0].lower()
    shown = ascii(name) if len(name) <= _LONGEST_SHOWN else "(not shown)"
    return f"unknown key type or option {shown}"


def may_match(sources: str, seen: tuple[Network, ...] | None) -> bool:
    """Whether `from="SOURCES"` can ever hold for an address in `seen` (None: any address).

    sshd does not look up names (UseDNS no), so a pattern for a name never matches. In
    doubt: True.
    """
    patterns = sources.split(",")
    # An empty pattern, or a network with bits behind its prefix, makes the whole list invalid.
    if any(not pattern.removeprefix("!") or _is_invalid(pattern) for pattern in patterns):
        return False
    return any(not each.startswith("!") and _may_match_one(each, seen) for each in patterns)


def _is_invalid(pattern: str) -> bool:
    address, slash, bits = pattern.removeprefix("!").partition("/")
    try:
        host = Network.host(address)
    except ValueError:
        return False
    if not slash or not bits.isdecimal() or not bits.isascii():
        return False
    return int(bits) > host.prefix or host.within(int(bits)).value != host.value


def _may_match_one(pattern: str, seen: tuple[Network, ...] | None) -> bool:
    try:
        network = Network.parse(pattern)
    except ValueError:
        if not _ADDRESS_PATTERN.fullmatch(pattern):
            return False
        network = _literal_part(pattern)
    return seen is None or any(network.covers(each) or each.covers(network) for each in seen)


def _literal_part(pattern: str) -> Network:
    """The smallest network of whole bytes that has every address the pattern matches."""
    octets = re.split("[*?]", pattern, maxsplit=1)[0].split(".")[:-1]
    if ":" in pattern or not octets or not all(octet.isdecimal() for octet in octets):
        return Network.parse("::/0" if ":" in pattern else "0.0.0.0/0")
    try:
        whole = Network.host(".".join([*octets, *["0"] * (4 - len(octets))]))
    except ValueError:
        return Network.parse("0.0.0.0/0")
    return whole.within(8 * len(octets))
