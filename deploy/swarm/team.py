"""`swarm.toml`: a team's machines, people and keys in one file, and the changes that it needs.

[defaults]            # of every machine
region = "ams"
size = "shared-cpu-2x"
memory = 2            # GB
volume = 10           # GB
image = "ghcr.io/you/swarm:1"

[machines.ann]        # differences for one machine
memory = 4
people = ["ann"]      # default: everybody

[people]
ann = "ssh-ed25519 AAAA…"
bob = ["ssh-ed25519 AAAA…", "ssh-ed25519 AAAA…"]
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from deploy.swarm import life, people, secrets, up
from deploy.swarm.fly import Fly
from deploy.swarm.place import NAME, Place
from deploy.swarm.wish import KEYS, UpError, Wish, checked_key, person_of, secret_name, wanted

FILE = "swarm.toml"


class TeamError(Exception):
    """The file cannot be used; the message says where and why."""


class _Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    region: str | None = None
    size: str | None = None
    memory: int | None = None
    volume: int | None = None
    image: str | None = None
    private: bool | None = None
    settings: dict[str, str] | None = None
    people: list[str] | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    defaults: _Machine = _Machine()
    machines: dict[str, _Machine] = {}
    people: dict[str, str | list[str]] = {}


@dataclass(frozen=True)
class Member:
    """One machine as the file describes it."""

    name: str
    wish: Wish
    settings: dict[str, str]
    keys: dict[str, str]
    """Secret name → text of the keys."""


@dataclass(frozen=True)
class Change:
    """The changes to one machine, in words; `deploys`: `swarm up` runs."""

    member: Member
    says: tuple[str, ...]
    deploys: bool
    give: dict[str, str]
    take: tuple[str, ...]


def read(path: Path) -> list[Member]:
    """The machines of a file. Raises `TeamError`."""
    try:
        found = msgspec.convert(tomllib.loads(path.read_text()), _File)
    except OSError as error:
        raise TeamError(f"{path}: {error.strerror}") from error
    except (ValueError, UnicodeDecodeError) as error:  # includes msgspec's and tomllib's errors
        raise TeamError(f"{path}: {error}") from error
    people_ = {who: _keys(path, who, given) for who, given in found.people.items()}
    return [_member(path, name, found, people_) for name in sorted(found.machines)]


def _keys(path: Path, who: str, given: str | list[str]) -> str:
    text = given if isinstance(given, str) else "\n".join(given)
    try:
        return checked_key(text, f"{path}: [people] {who}")
    except UpError as error:
        raise TeamError(str(error)) from error


def _member(path: Path, name: str, file: _File, people_: dict[str, str]) -> Member:
    if not NAME.fullmatch(name):
        raise TeamError(f"{path}: [machines.{name}]: small letters, digits and -, 3 to 40 of them")
    own, default = file.machines[name], file.defaults

    def either(field: str) -> object:
        value = getattr(own, field)
        return getattr(default, field) if value is None else value

    names = own.people if own.people is not None else default.people
    chosen = sorted(people_) if names is None else names
    if unknown := [who for who in chosen if who not in people_]:
        raise TeamError(
            f"{path}: [machines.{name}] people: {', '.join(unknown)} is not in [people]"
        )
    wish = Wish(
        region=either("region"),  # type: ignore[arg-type]
        size=either("size"),  # type: ignore[arg-type]
        memory_gb=either("memory"),  # type: ignore[arg-type]
        volume_gb=either("volume"),  # type: ignore[arg-type]
        image=either("image"),  # type: ignore[arg-type]
        private=bool(either("private")),
    )
    try:
        wanted(Place(name).state(), wish)
    except UpError as error:
        raise TeamError(f"{path}: [machines.{name}]: {error}") from error
    settings = {**(default.settings or {}), **(own.settings or {})}
    return Member(name, wish, settings, {secret_name(who): people_[who] for who in chosen})


def change(member: Member, fly: Fly) -> Change:
    """The differences between a machine and the file. Raises `FlyError`."""
    where = Place(member.name)
    state = where.state()
    there = fly.has_app(member.name)
    says = [] if there else ["is made"]
    after = wanted(where.state(), member.wish)
    for field, what in (
        ("region", "region"),
        ("size", "size"),
        ("memory_gb", "GB of memory"),
        ("volume_gb", "GB of volume"),
        ("image", "image"),
        ("private", "private"),
    ):
        before, now = getattr(state, field), getattr(after, field)
        if there and before != now:
            says.append(f"{what}: {before or 'built'} → {now or 'built'}")
    if state.env != {**state.env, **member.settings}:
        says.append(f"settings: {', '.join(sorted(member.settings))}")
    deploys = bool(says)
    known = set(fly.secrets(member.name)) if there else set()
    give = {
        name: text
        for name, text in member.keys.items()
        if name not in known or state.secrets.get(name) != up.digest(text)
    }
    take = tuple(
        name for name in sorted(known) if name.startswith(KEYS) and name not in member.keys
    )
    says += [f"key of {person_of(name)}" for name in give]
    says += [f"key of {person_of(name)} removed" for name in take]
    if take and not member.keys:
        raise TeamError(f"{member.name} would have no key: nobody could log in")
    return Change(member, tuple(says), deploys, give, take)


def bring(made: Change, fly: Fly) -> str:
    """Make a machine match the file. Raises `UpError`, `FlyError`."""
    member, where = made.member, Place(made.member.name)
    if not made.says:
        return "matches the file"
    if made.deploys:
        state = where.state()
        state.env = {**state.env, **member.settings}
        if where.exists or member.settings:
            where.keep(state)
        up.Up(where, fly, lambda _: True, keys=made.give).run(member.wish)
    elif made.give:
        secrets.give(fly, member.name, made.give, f"keys of {member.name}")
        state = where.state()
        up.remember_secrets(state, made.give)
        where.keep(state)
    if made.take:
        people.unset(where, fly, list(made.take))
    if made.take or not made.deploys:
        life.apply_secrets(fly, member.name)
    return "; ".join(made.says)


def unlisted(members: Iterable[Member], names: Iterable[str]) -> list[str]:
    """Machines of this laptop that the file does not name; they are left alone."""
    known = {member.name for member in members}
    return [name for name in names if name not in known]
