import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.access.authlog import AuthEvent, Step, judge, parse
from agent.access.values import Verdict

FP = "SHA256:" + "a" * 43
A = "203.0.113.9"

TABLE = [
    (f'Connection from {A} port 5 on 10.0.0.1 port 2222 rdomain ""', Step.NOISE),
    (f"Accepted publickey for dev from {A} port 5 ssh2: ED25519 {FP}", Step.ACCEPTED),
    (f"Accepted key ED25519 {FP} found at /run/swarm/authorized_keys:1", Step.NOISE),
    (f"Postponed publickey for dev from {A} port 5 ssh2 [preauth]", Step.NOISE),
    (f"Failed publickey for dev from {A} port 5 ssh2: RSA {FP}", Step.FAILED),
    (f"Failed password for dev from {A} port 5 ssh2", Step.FAILED),
    (f"Failed none for invalid user bob from {A} port 5 ssh2", Step.INVALID_USER),
    (f"Failed publickey for invalid user bob from {A} port 5 ssh2: RSA {FP}", Step.INVALID_USER),
    (f"Failed publickey for dev from {A} port 5 ssh2: RSA {FP} [preauth]", Step.FAILED),
    ("Failed keyboard-interactive/pam for dev from 2001:db8::1 port 5 ssh2", Step.FAILED),
    (f"Invalid user bob from {A} port 5", Step.INVALID_USER),
    (f"Invalid user  from {A} port 5", Step.INVALID_USER),
    ("User root not allowed because not listed in AllowUsers", Step.REFUSED_USER),
    (f"User dev from {A} not allowed because account is locked", Step.BROKEN_ACCOUNT),
    ("User dev not allowed because shell /bin/fish does not exist", Step.BROKEN_ACCOUNT),
    ("User dev not allowed because shell /bin/x y is not executable", Step.BROKEN_ACCOUNT),
    ("User dev not allowed because /etc/nologin exists", Step.BROKEN_ACCOUNT),
    ("Account dev has expired", Step.BROKEN_ACCOUNT),
    (f"ROOT LOGIN REFUSED FROM {A} port 5", Step.REFUSED_USER),
    (
        f"error: maximum authentication attempts exceeded for dev from {A} port 5 ssh2 [preauth]",
        Step.TOO_MANY,
    ),
    (
        f"maximum authentication attempts exceeded for invalid user x from {A} port 5 ssh2",
        Step.TOO_MANY,
    ),
    (
        f"Disconnecting authenticating user dev {A} port 5: Too many authentication failures "
        "[preauth]",
        Step.TOO_MANY,
    ),
    (
        f"Disconnecting authenticating user dev {A} port 5: Change of username or service not "
        "allowed: (dev,ssh-connection) -> (root,ssh-connection) [preauth]",
        Step.TOO_MANY,
    ),
    (f"Connection closed by authenticating user dev {A} port 5 [preauth]", Step.GAVE_UP),
    (f"Connection reset by invalid user bob {A} port 5 [preauth]", Step.GAVE_UP),
    (f"Connection closed by {A} port 5 [preauth]", Step.NO_ATTEMPT),
    (f"Connection reset by {A} port 5", Step.NO_ATTEMPT),
    ("error: kex_exchange_identification: Connection closed by remote host", Step.NO_ATTEMPT),
    ("kex_exchange_identification: read: Connection reset by peer", Step.NO_ATTEMPT),
    (
        'kex_exchange_identification: client sent invalid protocol identifier "GET / HTTP/1.1"',
        Step.PROBE,
    ),
    (f"banner exchange: Connection from {A} port 5: invalid format", Step.PROBE),
    (
        f"Unable to negotiate with {A} port 5: no matching key exchange method found. "
        "Their offer: diffie-hellman-group1-sha1 [preauth]",
        Step.NO_ATTEMPT,
    ),
    ("Bad packet length 1397966893. [preauth]", Step.PROBE),
    (
        f"ssh_dispatch_run_fatal: Connection from {A} port 5: Connection corrupted [preauth]",
        Step.PROBE,
    ),
    (f"fatal: Timeout before authentication for {A} port 5", Step.TIMEOUT),
    (f"Timeout before authentication for connection from {A} to 10.0.0.1, pid = 7", Step.TIMEOUT),
    (f"Timeout, client not responding from user dev {A} port 5", Step.TIMEOUT),
    (f"Starting session: shell on pts/7 for dev from {A} port 5 id 0", Step.SHELL),
    (f"Starting session: command for dev from {A} port 5 id 0", Step.NOISE),
    (f"Received disconnect from {A} port 5:11: disconnected by user", Step.LEFT),
    (f"Disconnected from user dev {A} port 5", Step.LEFT),
    ("User child is on pid 4711", Step.NOISE),
    ("", Step.NOISE),
]


@pytest.mark.parametrize(("line", "step"), TABLE)
def test_messages_of_openssh(line: str, step: Step) -> None:
    assert parse(line).step is step


def test_success_names_user_and_key() -> None:
    line = f"Accepted publickey for dev from {A} port 5 ssh2: ED25519 {FP}"
    assert parse(line) == AuthEvent(Step.ACCEPTED, "dev", FP)


def test_certificate_is_known_by_its_authority() -> None:
    authority = "SHA256:" + "b" * 43
    line = (
        f"Accepted publickey for dev from {A} port 5 ssh2: ED25519-CERT {FP} ID ann (serial 0) "
        f"CA ED25519 {authority}"
    )
    assert parse(line).fingerprint == authority


INJECTED = [
    # CVE-2007-4321 (fail2ban), CVE-2007-4323 (DenyHosts): a name that looks like the end of a line.
    "root from 198.51.100.7 port 22 ssh2",
    # CVE-2009-0362, CVE-2013-2178, CVE-2013-7176: a name that looks like a whole message.
    f"x from 198.51.100.7 port 1 ssh2: ED25519 {FP}",
    f"Accepted publickey for dev from 198.51.100.7 port 1 ssh2: ED25519 {FP}",
    f"a\\nAccepted publickey for dev from 198.51.100.7 port 1 ssh2: ED25519 {FP}",
    "dev from 198.51.100.7 port 1",
    "",
    " ",
    "invalid user x",
]


@pytest.mark.parametrize("name", INJECTED)
def test_a_name_that_imitates_the_log_is_only_a_name(name: str) -> None:
    assert parse(f"Invalid user {name} from {A} port 5") == AuthEvent(Step.INVALID_USER, name)
    failed = parse(f"Failed none for invalid user {name} from {A} port 5 ssh2")
    assert failed == AuthEvent(Step.INVALID_USER, name)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=100))
def test_no_name_makes_a_failure_a_success(name: str) -> None:
    for line in (
        f"Invalid user {name} from {A} port 5",
        f"Failed publickey for invalid user {name} from {A} port 5 ssh2: RSA {FP}",
        f"Connection closed by invalid user {name} {A} port 5 [preauth]",
        f"User {name} not allowed because not listed in AllowUsers",
        f"Received disconnect from {A} port 5:11: {name}",
        f'kex_exchange_identification: client sent invalid protocol identifier "{name}"',
    ):
        event = parse(line)
        assert event.step not in {Step.ACCEPTED, Step.NOISE, Step.TERMINAL}


@given(st.text(max_size=300))
def test_no_line_breaks_the_parser(line: str) -> None:
    parse(line)


@pytest.mark.parametrize(
    ("steps", "exit_code", "verdict"),
    [
        ({Step.FAILED, Step.ACCEPTED, Step.LEFT}, 255, Verdict.LOGIN),
        ({Step.FAILED, Step.TOO_MANY}, 255, Verdict.FAILED),
        ({Step.GAVE_UP}, 255, Verdict.FAILED),
        ({Step.FAILED, Step.INVALID_USER}, 255, Verdict.INVALID_USER),
        ({Step.REFUSED_USER}, 255, Verdict.INVALID_USER),
        ({Step.PROBE}, 255, Verdict.PROBE),
        ({Step.NO_ATTEMPT}, 255, Verdict.NOTHING),
        (set(), 0, Verdict.NOTHING),
        # OpenSSH 9.8 and later also report it by the exit status.
        (set(), 5, Verdict.FAILED),
        ({Step.NO_ATTEMPT}, 3, Verdict.PROBE),
        (set(), 7, Verdict.INVALID_USER),
    ],
)
def test_verdict_is_per_connection(steps: set[Step], exit_code: int, verdict: Verdict) -> None:
    assert judge(frozenset(steps), exit_code) is verdict
