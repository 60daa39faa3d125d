"""The faults of restic, recognised by its exit status and its messages.

File names, which the account chooses, cannot influence this: `running` keeps them out.
"""

import re
from enum import Enum


class Fault(Enum):
    """The kind of fault; the next step depends on it."""

    ABSENT = "restic is not installed"
    NO_REPOSITORY = "there is no repository"
    LOCKED = "the repository is locked"
    KEY = "the repository's key is wrong"
    DENIED = "the repository refuses the credentials"
    DAMAGED = "the repository is damaged"
    FULL = "no space left"
    UNREACHABLE = "the repository cannot be reached"
    NOT_FOUND = "there is no such checkpoint"
    GIVEN_UP = "given up"
    OTHER = "restic failed"


_TELLTALES = (
    (Fault.KEY, "wrong password or no key found"),
    (Fault.DENIED, "Access ?Denied|SignatureDoesNotMatch|InvalidAccessKey|Permission denied \\("
     "|status code 40[13]|(?:response|server)[^\\n]* 40[13]\\b|unauthorized"),
    (Fault.LOCKED, "already locked"),
    (Fault.FULL, "no space left on device|disk quota exceeded"),
    (Fault.DAMAGED, "ciphertext verification failed|is damaged|invalid data returned|hash mismatch"
     "|not found in index|does not exist in index|repository contains errors|Load\\(.*no such file"
     "|unexpected EOF|wrong data returned|corrupt"),
    (Fault.NO_REPOSITORY, "unable to open config file: .*no such file|does not exist"),
    (Fault.NOT_FOUND, "no matching ID found|no snapshot found|invalid id"),
    (Fault.UNREACHABLE, "unable to start the sftp session|connection refused|no such host|timeout"
     "|network is unreachable|connection reset|Connection closed|no route to host"),
)  # fmt: skip

_STATUSES = {10: Fault.NO_REPOSITORY, 11: Fault.LOCKED, 12: Fault.KEY}
"""Exit statuses of restic since 0.17."""


class ResticError(Exception):
    """restic failed; the message is for people."""

    def __init__(self, fault: Fault, said: str, *, away: bool = False) -> None:
        super().__init__(f"{fault.value}: {said}" if said else fault.value)
        self.fault = fault
        self.away = away
        """The repository away from the machine failed."""


def fault_of(status: int, said: str) -> Fault:
    """The fault behind an exit status and the messages on stderr."""
    if status in _STATUSES:
        return _STATUSES[status]
    fatal = "\n".join(line for line in said.split("\n") if line.startswith("Fatal:"))
    for fault, pattern in _TELLTALES:
        if re.search(pattern, fatal or said, re.IGNORECASE):
            return fault
    return Fault.GIVEN_UP if status in (130, 137, 143) else Fault.OTHER
