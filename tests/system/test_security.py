"""The machine as seen by independent tools and hostile processes."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlencode

import asyncssh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import BoxMaker
from tests.support import Box, Key, let_others_in, make_key, ready, until

pytestmark = pytest.mark.attack

SSH_AUDIT = Path(sys.executable).with_name("ssh-audit")


def test_an_independent_audit_of_sshd_finds_no_failure(make_box: BoxMaker) -> None:
    """ssh-audit checks the algorithms that are really offered."""
    box = make_box().boot()
    command = [str(SSH_AUDIT), "--json", "--port", str(box.port), "127.0.0.1"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    failures = [
        f"{entry['algorithm']}: {note}"
        for kind in ("kex", "key", "enc", "mac")
        for entry in found[kind]
        for note in entry["notes"].get("fail", [])
    ]
    assert found["kex"]
    assert found["enc"]
    # ML-KEM and NIST curves: the tool's opinion of a curve's origin is not a weakness.
    assert [failure for failure in failures if "suspected" not in failure] == []
    assert [each["cve"] for each in found.get("cves", [])] == []


@pytest.mark.root
def test_a_hostile_process_can_neither_read_nor_hurt_the_agent(make_box: BoxMaker) -> None:
    box = make_box().boot({"SOME_SECRET": "sesame"})
    attacks = (
        "cat /proc/1/environ",
        "cat /proc/1/mem",
        "ls /proc/1/fd",
        "kill -9 1",
        "kill -STOP 1",
        "cat /run/swarm/ssh_host_ed25519_key",
        "cat /run/swarm/sshd_config",
        "echo x >>/run/swarm/authorized_keys",
        "mv /run/swarm/authorized_keys /tmp/away",
        "rm /run/swarm/agent.sock",
        "ls /mnt/.swarm",
        "echo 'ssh-ed25519 AAAA' >/etc/swarm/keys.d/x.pub",
        "swarm-agent ban 127.0.0.1",
        "swarm-agent unban --all",
        "swarm-agent sleep --now",
        "chown root /tmp",
    )
    for attack in attacks:
        result = box.ssh(attack)
        assert result.returncode != 0, attack
        assert "sesame" not in result.stdout, attack
    assert box.ssh("echo still in").stdout == "still in\n"


FORGED = (
    'x"}\n{"event": "ssh.session.opened", "user": "root"}\x1b[2J',
    "x\nAccepted publickey for dev from 192.0.2.1 port 5 ssh2\ny",
    "x\r\nAccepted none for dev from 192.0.2.1 port 5 ssh2\r\ny",
    "x\nReceived disconnect from 192.0.2.1 port 5\n",
)


@pytest.mark.parametrize("name", FORGED)
def test_a_user_name_cannot_speak_for_sshd(
    make_box: BoxMaker, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Line breaks in a name cannot forge a message, a log line or a login; they are a strike."""
    box = make_box().boot({"SWARM_LOG_LEVEL": "debug"})
    # A client that allows any characters in a name.
    monkeypatch.setattr("asyncssh.connection.saslprep", lambda text: text)

    async def knock() -> None:
        with pytest.raises(asyncssh.PermissionDenied):
            await asyncssh.connect(
                "127.0.0.1",
                box.port,
                username=name,
                client_keys=[str(box.key.path)],
                known_hosts=None,
            )

    asyncio.run(knock())
    assert box.event("ssh.connection.closed")["verdict"] == "invalid user"
    assert not box.events("ssh.session.opened")
    lines = box.log_path.read_text().splitlines()
    assert not [line for line in lines if json.loads(line).get("user") == "root"]
    assert not [line for line in lines if "\x1b" in line]


MANY_WRITES = r"""#!/usr/bin/python3
import os, sys
if sys.argv[1] == "-t":
    sys.exit()
os.write(1, b"SSH-2.0-x\r\n")
try:
    assert os.read(0, 1)
except (OSError, AssertionError):
    sys.exit(255)
name = b"x\nAccepted publickey for dev from 192.0.2.1 port 5 ssh2: ED25519 SHA256:" + b"a" * 43
for _ in range(100):
    os.write(2, b"Invalid user " + name + b" from 192.0.2.1 port 5\r\n")
"""


@pytest.mark.root
def test_what_sshd_writes_at_once_is_one_message_whatever_is_in_it(
    make_box: BoxMaker, tmp_path: Path
) -> None:
    """Newer versions of sshd escape line breaks in a name; this one does not."""
    program = tmp_path / "sshd"
    program.write_text(MANY_WRITES)
    program.chmod(0o755)
    let_others_in(tmp_path)
    box = make_box().boot({"SWARM_SSHD": str(program), "SWARM_LOG_LEVEL": "debug"})
    with socket.create_connection(("127.0.0.1", box.port)) as connection:
        connection.sendall(b"x")
        assert box.event("ssh.connection.closed", verdict="invalid user")
    assert not box.events("ssh.session.opened")
    said = {each["line"] for each in box.events("ssh.sshd")}
    assert len(said) == 1, said


@pytest.mark.root
def test_descriptors_used_up_are_survived(make_box: BoxMaker) -> None:
    """Connections beyond the agent's limit wait; open sessions stay."""
    box = make_box()
    box.boot(
        {"SWARM_MAX_UNAUTHENTICATED": "9999", "SWARM_MAX_UNAUTHENTICATED_PER_CLIENT": "9999"},
        before="ulimit -n 96",
    )
    with subprocess.Popen(
        box.ssh_command("cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(b"one\n")
        session.stdin.flush()
        assert session.stdout.readline() == b"one\n"
        idle = [socket.create_connection(("127.0.0.1", box.port)) for _ in range(60)]
        box.event("ssh.connections.refused", reason="no sshd could be started")
        session.stdin.write(b"two\n")
        session.stdin.flush()
        assert session.stdout.readline() == b"two\n"
        for connection in idle:
            connection.close()
        until(lambda: box.ssh("echo in").stdout == "in\n", "a login afterwards")
        session.stdin.close()
        assert session.wait(30) == 0


@pytest.mark.root
def test_frozen_for_a_while_it_goes_on(box: Box) -> None:
    """SIGSTOP stands for a host that has no time for us."""
    init = box.machine.init
    os.kill(init, 19)
    with socket.create_connection(("127.0.0.1", box.port)) as waiting:
        os.kill(init, 18)
        waiting.settimeout(30)
        assert waiting.recv(4) == b"SSH-"
    assert box.ssh("echo in").stdout == "in\n"


PATHS = (
    "/metrics /healthz / /status.json /v1/health /v1/status /v1/keys /v1/egress /v1/sessions "
    "/v1/history /v1/usage /v1/bans /v1/idle /v1/sleep /v1/leases /v1/services "
    "/v1/services/x/start /v1/services/x/logs /v1/checkpoints /v1/checkpoints/diff /v1/agents"
).split()
NUMBERS = st.integers() | st.floats() | st.just(1e400)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "seconds", "while_running", "network", "now"]) | st.text(),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Nearly valid requests, which reach code that random noise does not."""
    method = draw(st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD"]) | st.text(max_size=8))
    path = draw(st.sampled_from(PATHS) | st.text(max_size=40).map("/".__add__))
    keys = st.sampled_from(["since", "network", "id", "name", "after", "wait"])
    query = draw(st.dictionaries(keys, st.text(max_size=20) | NUMBERS.map(str), max_size=3))
    words = "&".join(f"{key}={value}" for key, value in query.items())
    body = draw(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
    length = draw(st.just(len(body)) | st.integers(-2, 1 << 70))
    more = draw(
        st.dictionaries(
            st.sampled_from(["Range", "Accept", "Expect", "Upgrade", "Transfer-Encoding", "Host"]),
            st.text(max_size=20) | st.sampled_from(["chunked", "100-continue", "websocket"]),
            max_size=3,
        )
    )
    head = [f"{method} {path}?{words} HTTP/1.1", f"Content-Length: {length}"]
    head += [f"{name}: {value}" for name, value in more.items()]
    return "\r\n".join(head).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


ODD = (
    st.sampled_from(["x", "1 2", "0x10", "--1", "nan", "inf", "-1", "1e999", "9" * 5000, ""])
    | st.text(max_size=20)
    | NUMBERS.map(str)
)


@st.composite
def whole_requests(draw: st.DrawFn, paths: Sequence[str]) -> bytes:
    """Valid requests, so that their content reaches the handlers."""
    method = draw(st.sampled_from(["GET", "GET", "GET", "POST", "DELETE"]))
    keys = ("since", "network", "id", "name", "after", "wait")
    query = urlencode({key: draw(ODD) for key in keys}, errors="surrogatepass")
    deep = b'{"x": ' + b"[" * 7000 + b"]" * 7000 + b"}"
    body = draw(
        st.sampled_from([b"", deep])
        | st.binary(max_size=200)
        | JSON.map(lambda v: json.dumps(v).encode())
    )
    version = draw(st.sampled_from(["1.0", "1.1"]))
    head = [f"{method} {draw(st.sampled_from(paths))}?{query} HTTP/{version}"]
    head += draw(st.sampled_from([["Host: x"], ["Host: 127.0.0.1"], []]))
    head += [f"Content-Length: {len(body)}"] if body or draw(st.booleans()) else []
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A machine that gets all strange requests."""
    folder = tmp_path_factory.mktemp("watched")
    key: Key = make_key(folder / "key")
    box = Box(folder / "box", key).boot()
    ready(box)
    until(lambda: box.metric("swarm_healthy") == "1.0", "HTTP")
    yield box
    try:
        assert not box.events("agent.error"), box.said()
        assert not box.events("agent.failed"), box.said()
        assert not box.events("agent.part.failed"), box.said()
        assert "Traceback" not in box.said()
        assert box.ssh("echo in").stdout == "in\n"
    finally:
        box.machine.kill()


def _answer(connection: socket.socket, request: bytes, *, whole: bool) -> bytes:
    connection.settimeout(20)
    try:
        connection.sendall(request)
        if not whole:  # whose end is the connection's
            connection.shutdown(socket.SHUT_WR)
        return connection.recv(65536)
    except ConnectionError:
        return b""


def _control(box: Box) -> socket.socket:
    run_dir = (
        Path(f"/proc/{box.machine.init}/root/run/swarm")
        if box.machine.namespaces
        else box.folder / "run"
    )
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(run_dir / "agent.sock"))
    return connection


STRANGE = st.binary(max_size=2000) | requests()


@settings(max_examples=400, deadline=None)
@given(request=STRANGE)
def test_strange_requests_over_http_are_answered_or_refused(watched: Box, request: bytes) -> None:
    with socket.create_connection(("127.0.0.1", watched.http_port)) as connection:
        assert b" 500 " not in _answer(connection, request, whole=False).partition(b"\r\n")[0]


@settings(max_examples=400, deadline=None)
@given(request=STRANGE)
def test_strange_requests_to_the_control_socket_are_answered_or_refused(
    watched: Box, request: bytes
) -> None:
    with _control(watched) as connection:
        assert b" 500 " not in _answer(connection, request, whole=False).partition(b"\r\n")[0]


@settings(max_examples=400, deadline=None)
@given(request=whole_requests(PATHS[:4]))
def test_strange_questions_over_http_are_answered(watched: Box, request: bytes) -> None:
    with socket.create_connection(("127.0.0.1", watched.http_port)) as connection:
        status = _answer(connection, request, whole=True).split(b" ", 2)[1]
    assert status in (b"200", b"400", b"405", b"413", b"503"), status


@settings(max_examples=400, deadline=None)
@given(request=whole_requests(PATHS[4:]))
def test_strange_questions_to_the_control_socket_are_answered(watched: Box, request: bytes) -> None:
    with _control(watched) as connection:
        status = _answer(connection, request, whole=True).split(b" ", 2)[1]
    assert status in (b"200", b"400", b"404", b"405", b"409", b"413", b"503"), status
