"""What `swarm audit` and `swarm doctor` report, one line each."""

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How serious a finding is."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `todo` is empty if nothing needs to be done."""

    level: Level
    says: str
    todo: str = ""
