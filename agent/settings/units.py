"""Parsers of setting values: text in, typed value out.

Every parser takes the text a person wrote and raises a `ValueError` whose message describes a
valid value, not the mistake: the caller already shows the value.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.durations import positive_duration
from agent.network import Network

if TYPE_CHECKING:
    from agent.notify.quiet import QuietHours

_SIZE = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_USER_NAME = re.compile(r"(?!-)[^\s*?!,:/\"'#=]{1,64}")
"""Account names of adduser and of directories such as AD (`john.doe`, `ann@corp`)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a socket listens. `host` is empty for every address, IPv4 and IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host or "*"
        return f"{host}:{self.port}"


def size(text: str) -> int:
    """Bytes, from `65536`, `64KiB`, `1GiB`."""
    match = re.fullmatch(r"(\d+)(|B|KiB|MiB|GiB)", text, re.ASCII)
    if match is None:
        raise ValueError("a size in bytes or with its unit, such as 64KiB, 10MiB or 1GiB")
    return int(match[1]) * _SIZE[match[2]]


def count(text: str) -> int:
    """A whole number of at least one."""
    if not re.fullmatch(r"[1-9]\d{0,8}", text, re.ASCII):
        raise ValueError("a whole number of at least 1")
    return int(text)


def endpoint(text: str) -> Endpoint:
    """Where to listen, from `2222`, `*:2222`, `127.0.0.1:2222`, `[::1]:2222`."""
    match = re.fullmatch(
        r"(?:(?:\*|\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<v4>[\d.]+)):)?(?P<port>\d{1,5})", text, re.ASCII
    )
    if match is None or not 0 < int(match["port"]) < 65536 or not _is_address(match):
        raise ValueError("a port, or an address and a port, such as 2222, 127.0.0.1:2222, [::]:22")
    return Endpoint(match["v6"] or match["v4"] or "", int(match["port"]))


def _is_address(match: "re.Match[str]") -> bool:
    import socket

    try:
        if match["v6"]:
            socket.inet_pton(socket.AF_INET6, match["v6"])
        elif match["v4"]:
            socket.inet_pton(socket.AF_INET, match["v4"])
    except OSError:
        return False
    return True


def absolute_path(text: str) -> str:
    """An absolute path, normalised; only plain characters, because sshd reads it too."""
    if not re.fullmatch(r"/[\w./+@:,=~-]*", text):
        raise ValueError("an absolute path of plain characters, such as /workspace")
    return os.path.normpath(text)


def optional_path(text: str) -> str:
    """An absolute path, or nothing."""
    return absolute_path(text) if text else ""


def hours_or_off(text: str) -> float | None:
    """A positive number of hours; None for `off`."""
    if text == "off":
        return None
    if not re.fullmatch(r"\d{1,4}(?:\.\d{1,3})?", text, re.ASCII) or float(text) == 0:
        raise ValueError("a number of hours, such as 160, or off")
    return float(text)


def user_name(text: str) -> str:
    """The name of a Unix account; empty: the agent chooses one."""
    if text and not _USER_NAME.fullmatch(text):
        raise ValueError("the name of an account, such as node")
    return text


def networks(text: str) -> tuple[Network, ...]:
    """IP addresses and networks, separated by commas or spaces; none when empty."""
    try:
        return tuple(Network.parse(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(
            f"addresses or networks such as 10.0.0.0/8, 2001:db8::/32: {error}"
        ) from None


def prefix(text: str) -> int:
    """The length of an IPv6 prefix."""
    if not re.fullmatch(r"\d{1,3}", text, re.ASCII) or not 0 < int(text) <= 128:
        raise ValueError("a prefix length between 1 and 128")
    return int(text)


def switch(text: str) -> bool:
    """`on` or `off`."""
    if text not in ("on", "off"):
        raise ValueError("on or off")
    return text == "on"


def duration_or_off(text: str) -> float | None:
    """A positive number of seconds; None for `off`."""
    try:
        return None if text == "off" else positive_duration(text)
    except ValueError as error:
        raise ValueError(f"{error}, or off") from None


def rate_or_off(text: str) -> float | None:
    """Bytes a second, from `256B/s`, `1KiB/s`; None for `off`."""
    if text == "off":
        return None
    match = re.fullmatch(r"(\d+(?:|B|KiB|MiB|GiB))/s", text, re.ASCII)
    if match is None:
        raise ValueError("bytes a second, such as 256B/s or 1KiB/s, or off")
    return float(size(match[1]))


def percent_or_off(text: str) -> float | None:
    """A share of one core as a fraction, from `5%`; None for `off`."""
    match = re.fullmatch(r"(\d{1,4}(?:\.\d{1,3})?)%", text, re.ASCII)
    if text == "off":
        return None
    if match is None or float(match[1]) == 0:
        raise ValueError("a share of one core, such as 5%, or off")
    return float(match[1]) / 100


def words(text: str) -> tuple[str, ...]:
    """Words separated by commas or spaces; none when empty."""
    return tuple(text.replace(",", " ").split())


_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HomePath:
    """A path relative to the home. A folder is created if it does not exist yet.

    `off`: paths in it that stay off the volume.
    """

    path: str
    is_folder: bool
    off: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.path + ("/" if self.is_folder else "")

    @property
    def words(self) -> str:
        """The text that `home_paths` reads."""
        return " ".join([str(self), *(f"-{self.path}/{off}" for off in self.off)])


USUAL = "usual"
"""Stands for the paths of agent/data/home.txt."""


def home_paths(text: str) -> tuple[HomePath, ...]:
    """Paths below the home, separated by spaces; the path of a folder ends with a slash.

    A minus in front marks a path in one of these folders that stays off the volume.
    """
    given = [each for word in words(text) for each in (_usual() if word == USUAL else (word,))]
    off = [word[1:].rstrip("/") for word in given if word.startswith("-")]
    paths: tuple[HomePath, ...] = ()
    for word in dict.fromkeys(word for word in given if not word.startswith("-")):
        inside = word.rstrip("/") + "/"
        left_out = tuple(each.removeprefix(inside) for each in off if each.startswith(inside))
        paths += (HomePath(word.rstrip("/"), word.endswith("/"), left_out),)
    for path in paths:
        parts = [part for each in (path.path, *path.off) for part in each.split("/")]
        if not all(parts) or {".", ".."} & set(parts):
            raise ValueError("paths relative to the home, without . and ..")
        if any(path.path.startswith(f"{other.path}/") for other in paths):
            raise ValueError(f"paths outside of each other, but {str(path)!r} is in another one")
    return paths


def _usual() -> tuple[str, ...]:
    path = os.path.join(os.path.dirname(os.path.dirname(__file__)), "data", "home.txt")
    with open(path, encoding="ascii") as file:
        lines = [line.partition("#")[0] for line in file]
    return tuple(word for line in lines for word in line.split())


def variable_names(text: str) -> tuple[str, ...]:
    """Names of environment variables."""
    names = words(text)
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
            raise ValueError("names of environment variables, separated by spaces")
    return names


def names_and_networks(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[Network, ...]]:
    """Separate host names from addresses and networks. Raises `ValueError`."""
    names, networks = [], []
    for word in words:
        if ":" in word or word[-1:].isdigit():
            networks.append(Network.parse(word))
        elif _NAME.fullmatch(word):
            names.append(word)
        else:
            raise ValueError(f"names of hosts, addresses or networks; {word!r} is none of them")
    return tuple(names), tuple(networks)


def destinations(text: str) -> tuple[str, ...]:
    """Names of hosts, addresses and networks."""
    found = words(text)
    names_and_networks(found)
    return found


@dataclass(frozen=True, slots=True)
class Keep:
    """How many checkpoints are kept: the latest of each of the last hours, days and weeks."""

    hourly: int
    daily: int
    weekly: int

    def __str__(self) -> str:
        return f"hourly {self.hourly}, daily {self.daily}, weekly {self.weekly}"


def keep(text: str) -> Keep:
    """A `Keep`, from `hourly 24, daily 7, weekly 4`."""
    match = re.fullmatch(r"hourly (\d{1,3}), daily (\d{1,3}), weekly (\d{1,3})", text, re.ASCII)
    if match is None:
        raise ValueError("three numbers, such as hourly 24, daily 7, weekly 4")
    return Keep(*map(int, match.groups()))


def share(text: str) -> float:
    """A share of a whole as a fraction, from `25%`."""
    match = re.fullmatch(r"(\d{1,2})%", text, re.ASCII)
    if match is None or int(match[1]) == 0:
        raise ValueError("a share between 1% and 99%")
    return int(match[1]) / 100


def share_or_off(text: str) -> float | None:
    """A share of a whole; None for `off`."""
    return None if text == "off" else share(text)


_REPOSITORY = re.compile(r"(s3:|rest:https?://|sftp:|b2:|azure:|gs:|/)[^\s\0]+")


def repository(text: str) -> str:
    """Where restic keeps checkpoints away from the machine, or nothing."""
    if text and not _REPOSITORY.fullmatch(text):
        raise ValueError("a restic repository, such as s3:https://HOST/BUCKET or sftp:HOST:PATH")
    if re.search(r"//[^/@]*:[^/@]*@", text):
        raise ValueError("a repository without a password in it: the password is its own secret")
    return text


def optional_endpoint(text: str) -> Endpoint | None:
    """Where to listen, or nothing."""
    return endpoint(text) if text else None


def some_of(*choices: str) -> Callable[[str], tuple[str, ...]]:
    """A parser that accepts words of `choices`, `all`, or nothing."""

    def parse(text: str) -> tuple[str, ...]:
        found = words(text)
        if found == ("all",):
            return choices
        if not set(found) <= set(choices):
            raise ValueError(f"some of {' '.join(choices)}; or all")
        return found

    return parse


def quiet_hours(text: str) -> "QuietHours | None":
    """`22:00-07:00` or `22:00-07:00 Europe/Berlin`; None when empty."""
    if not text:
        return None
    from agent.notify.quiet import QuietHours  # imports the time zones, which few need

    return QuietHours.parse(text)


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser that accepts exactly `choices`."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text

    return parse
