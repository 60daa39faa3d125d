"""Parses the messages of one connection's sshd into typed steps of a login.

Quoted text, user names and disconnect messages are chosen by the client (any bytes, made visible by
sshd, spaces allowed). So a pattern must match the whole line, and the client is known from the
process, not from the address in the text. Knows the messages of OpenSSH 8.4, 9.2 and 10.x at
LogLevel VERBOSE.
"""

import re
from dataclasses import dataclass
from enum import Enum
from functools import cache

from agent.access.values import Verdict


class Step(Enum):
    """What a line says about its connection."""

    NOISE = "noise"
    ACCEPTED = "accepted"
    FAILED = "failed"
    INVALID_USER = "invalid user"
    REFUSED_USER = "refused user"
    BROKEN_ACCOUNT = "broken account"
    TOO_MANY = "too many attempts"
    PROBE = "probe"
    GAVE_UP = "gave up"
    NO_ATTEMPT = "no attempt"
    TIMEOUT = "timeout"
    TERMINAL = "terminal"
    SHELL = "shell"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class AuthEvent:
    """One step. `user` is the client's claim; `fingerprint` and `terminal` come from sshd."""

    step: Step
    user: str = ""
    fingerprint: str = ""
    terminal: str = ""


_PORT = r"[0-9a-fA-F:.%A-Za-z]+ port \d{1,5}"
_FROM = rf"from {_PORT}"
_PROLOGUE = r"(?:error: |fatal: )?"

# The first match wins. `user` is greedy (except before an optional host), and the text after it is
# anchored at the end of the line, so that text inside a name is never mistaken for sshd's own.
_TABLE = (
    (
        Step.ACCEPTED,
        rf"Accepted [a-z-]+(?:/[a-z-]+)? for (?P<user>.*) {_FROM} ssh2"
        r"(?:: [A-Z0-9-]+ (?P<fingerprint>SHA256:[A-Za-z0-9+/]{43})(?P<certificate> ID .*)?)?",
    ),
    (
        Step.INVALID_USER,
        rf"Failed [a-z-]+(?:/[a-z-]+)? for invalid user (?P<user>.*) {_FROM} ssh2"
        r"(?:: .*)?",
    ),
    (
        Step.FAILED,
        rf"Failed [a-z-]+(?:/[a-z-]+)? for (?P<user>.*) {_FROM} ssh2(?:: .*)?",
    ),
    (Step.INVALID_USER, rf"Invalid user (?P<user>.*) {_FROM}"),
    # For the login account this is a fault of the machine, for others an attempt of the client.
    (
        Step.BROKEN_ACCOUNT,
        r"User (?P<user>.*?)(?: from \S+)? not allowed because "
        r"(?:account is locked|shell .* (?:does not exist|is not executable)|/\S+ exists)",
    ),
    (Step.BROKEN_ACCOUNT, r"Account (?P<user>.*) has expired"),
    (Step.REFUSED_USER, r"User (?P<user>.*) not allowed because .*"),
    (Step.REFUSED_USER, rf"ROOT LOGIN REFUSED FROM {_PORT}"),
    (
        Step.TOO_MANY,
        rf"maximum authentication attempts exceeded for (?:invalid user )?(?P<user>.*) "
        rf"{_FROM} ssh2",
    ),
    # Too many failures, or the client changed the user name or service midway.
    (
        Step.TOO_MANY,
        rf"Disconnecting (?:authenticating|invalid) user (?P<user>.*) {_PORT}: .*",
    ),
    (
        Step.GAVE_UP,
        rf"Connection (?:closed|reset) by (?:authenticating|invalid) user (?P<user>.*) {_PORT}",
    ),
    (
        Step.GAVE_UP,
        rf"Disconnected from (?:authenticating|invalid) user (?P<user>.*) {_PORT}",
    ),
    (Step.NO_ATTEMPT, rf"Connection (?:closed|reset) by {_PORT}"),
    (
        Step.NO_ATTEMPT,
        r"kex_exchange_identification: (?:read: )?"
        r"(?:Connection closed by remote host|Connection reset by peer)",
    ),
    (Step.PROBE, r"kex_exchange_identification: client sent invalid protocol identifier .*"),
    (Step.PROBE, r"kex_exchange_identification: banner line .*"),
    (Step.PROBE, rf"banner exchange: Connection {_FROM}: invalid format"),
    # An old client, or ssh-keyscan: it did not try to log in.
    (Step.NO_ATTEMPT, rf"Unable to negotiate with {_PORT}: no matching .*"),
    (Step.PROBE, r"Protocol major versions differ.*"),
    (Step.PROBE, r"Bad packet length \d+\."),
    (Step.PROBE, r"(?:ssh_dispatch_run_fatal|dispatch_protocol_error): .*"),
    (Step.PROBE, r"(?:padding error|Corrupted MAC on input|Connection corrupted).*"),
    (Step.TIMEOUT, r"Timeout before authentication for .*"),
    (Step.TIMEOUT, r"Timeout, client not responding from .*"),
    (
        Step.SHELL,
        rf"Starting session: shell on (?P<terminal>pts/\d+) "
        rf"for (?P<user>.*) {_FROM} id \d+",
    ),
    (
        Step.TERMINAL,
        rf"Starting session: (?:command|forced-command .*) on (?P<terminal>pts/\d+) "
        rf"for (?P<user>.*) {_FROM} id \d+",
    ),
    (Step.LEFT, rf"Received disconnect {_FROM}:11: .*"),
    (Step.LEFT, rf"Disconnected from user (?P<user>.*) {_PORT}"),
)

_CERTIFICATE = re.compile(r".* \(serial \d+\) CA [A-Z0-9-]+ (SHA256:[A-Za-z0-9+/]{43})")


@cache
def _patterns() -> "tuple[tuple[Step, re.Pattern[str]], ...]":
    # Compiled at the first message of a sshd: by then the first banner is on its way.
    return tuple(
        (step, re.compile(_PROLOGUE + pattern + r"(?: \[preauth\])?")) for step, pattern in _TABLE
    )


def parse(line: str) -> AuthEvent:
    """The step that a line of sshd reports. Never raises, whatever the line."""
    for step, pattern in _patterns():
        match = pattern.fullmatch(line)
        if match is not None:
            return _event(step, match.groupdict())
    return AuthEvent(Step.NOISE)


def _event(step: Step, words: dict[str, str | None]) -> AuthEvent:
    fingerprint = words.get("fingerprint") or ""
    certificate = _CERTIFICATE.fullmatch(words.get("certificate") or "")
    return AuthEvent(
        step,
        user=words.get("user") or "",
        # A certificate is identified by its authority, which is in the keys file.
        fingerprint=certificate[1] if certificate else fingerprint,
        terminal=words.get("terminal") or "",
    )


_EXIT_STATUS = {
    # OpenSSH 9.8 and 10.x: the exit status of sshd-session says how its connection ended.
    3: Step.TIMEOUT,
    4: Step.PROBE,
    5: Step.FAILED,
    6: Step.REFUSED_USER,
    7: Step.INVALID_USER,
}

_SEVERITY = (
    (Verdict.LOGIN, {Step.ACCEPTED}),
    (Verdict.BROKEN_ACCOUNT, {Step.BROKEN_ACCOUNT}),
    (Verdict.INVALID_USER, {Step.INVALID_USER, Step.REFUSED_USER}),
    (Verdict.FAILED, {Step.FAILED, Step.TOO_MANY, Step.GAVE_UP}),
    (Verdict.PROBE, {Step.PROBE, Step.TIMEOUT}),
)


def judge(steps: frozenset[Step], exit_code: int) -> Verdict:
    """The verdict on a connection, from all steps of its sshd and its exit code.

    A login outweighs all failures before it. A client that offers five keys before the right one,
    or that gives up after one key, has made one attempt.
    """
    last = _EXIT_STATUS.get(exit_code)
    seen = steps | {last} if last is not None else steps
    for verdict, signs in _SEVERITY:
        if seen & signs:
            return verdict
    return Verdict.NOTHING
