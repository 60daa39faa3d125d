"""Reads services from files: each file is used as a whole or refused as a whole.

A refused file changes nothing: the services loaded from it before keep running.
"""

import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.platform.account import Account
from agent.services import graph
from agent.services.definition import DefinitionError, Service, parse
from agent.settings.files import listed

SUFFIX = ".toml"

SIZE_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that is not used, and the reason as the user reads it."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


Files = Mapping[str, Mapping[str, Service]]


@dataclass(frozen=True, slots=True)
class Plan:
    """The configured services, by the file they come from."""

    files: Files = field(default_factory=dict)

    @property
    def services(self) -> dict[str, Service]:
        """All services by name."""
        return {name: service for found in self.files.values() for name, service in found.items()}

    def file_of(self, name: str) -> str:
        """The file that defines a service."""
        return next(path for path, found in self.files.items() if name in found)


def paths(config: str, folder: str) -> list[str]:
    """The files that may define services: the settings file, and each .toml in the folder."""
    found = [config] if os.path.exists(config) else []
    if os.path.isdir(folder):
        found += listed(folder, SUFFIX)
    return found


def load(files: Sequence[str], account: Account, before: Plan) -> tuple[Plan, list[Refused]]:
    """Read these files. Returns the plan and the refused files."""
    taken: dict[str, Mapping[str, Service]] = {}
    refused: list[Refused] = []
    for path in files:
        try:
            found = _read(path, account)
            _require_new_names(found, taken)
            taken[path] = found
        except DefinitionError as error:
            refused.append(Refused(path, str(error)))
            taken[path] = before.files.get(path, {})
    while (wrong := _wrong_order(Plan(taken))) is not None:
        refused.append(wrong)
        kept = before.files.get(wrong.file, {})
        # Services that were valid before may not be valid together with new ones.
        taken[wrong.file] = {} if taken[wrong.file] is kept else kept
    return Plan(taken), refused


def _require_new_names(found: Mapping[str, Service], taken: Files) -> None:
    for name in found:
        if any(name in other for other in taken.values()):
            raise DefinitionError(f"[service.{name}] is in another file too")


def _wrong_order(plan: Plan) -> Refused | None:
    services = plan.services
    for name, other in graph.unknown(services).items():
        return Refused(
            plan.file_of(name), f"[service.{name}] follows {other}, which does not exist"
        )
    cycle = graph.cycle(services)
    if cycle:
        words = " after ".join(cycle)
        return Refused(plan.file_of(cycle[0]), f"[service.{cycle[0]}]: a cycle: {words}")
    return None


def _read(path: str, account: Account) -> dict[str, Service]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            text = file.read(SIZE_LIMIT).decode("utf-8-sig")
        tables = tomllib.loads(text).get("service", {})
    except (OSError, ValueError) as error:  # invalid UTF-8 or TOML is a ValueError
        raise DefinitionError(str(error)) from error
    if not isinstance(tables, dict):
        raise DefinitionError("service: expected tables [service.NAME]")
    services = {}
    for name, table in tables.items():
        try:
            services[name] = parse(name, table, account.name)
            _require_trust(services[name], status, account)
        except DefinitionError as error:
            raise DefinitionError(f"[service.{name}] {error}") from None
    return services


def _require_trust(service: Service, status: os.stat_result, account: Account) -> None:
    """Only root, or the user the service runs as, may be able to write the file."""
    if not stat.S_ISREG(status.st_mode):
        raise DefinitionError("expected a regular file")
    if status.st_mode & 0o022:
        raise DefinitionError("others can write this file: chmod go-w")
    if status.st_uid in (0, os.geteuid()):
        return
    if status.st_uid != account.uid or service.user != account.name:
        raise DefinitionError(
            f"user = {service.user!r}: a file of uid {status.st_uid} can only have services that "
            f"run as {account.name}; chown root the file"
        )
