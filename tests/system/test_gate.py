"""The gate in front of real sshd processes: admission, refusals and bans."""

import asyncio
import contextlib
import json
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest

from deploy.header import header
from deploy.machine import AGENT
from tests.conftest import BoxMaker
from tests.support import Box, Key, make_key, until
from tests.world import World, world

PROXIED = {"SWARM_PROXY_PROTOCOL": "required", "SWARM_PROXY_NETWORKS": "127.0.0.0/8"}
ATTACKER = "203.0.113.9"


def connect(box: Box, source: str | None = ATTACKER, version: int = 2) -> socket.socket:
    """A connection to the gate, as the proxy opens it for a client at `source`."""
    connection = socket.create_connection(("127.0.0.1", box.port))
    connection.settimeout(20)
    if source is not None:
        target = "::1" if ":" in source else "10.0.0.1"
        connection.sendall(header(version, (source, 5), (target, 22)))
    return connection


def answer(connection: socket.socket) -> bytes:
    """The next bytes from the gate; empty if it closed the connection."""
    try:
        return connection.recv(4)
    except ConnectionResetError:
        return b""


def see_the_end(connection: socket.socket) -> None:
    """Read until the gate closes."""
    while answer(connection):
        pass


def boot(box: Box, environ: dict[str, str] | None = None, before: str = "") -> Box:
    """Boot behind a proxy, and wait for the banner."""
    box.start(PROXIED | (environ or {}), before=before)

    def answers() -> bool:
        try:
            with connect(box, "192.0.2.99") as probe:
                return answer(probe) == b"SSH-"
        except OSError:
            return False

    until(answers, f"a banner; the log says {box.said()}")
    return box


@pytest.fixture
def gate(make_box: BoxMaker) -> Box:
    return boot(make_box())


def garbage(box: Box, source: str = ATTACKER) -> None:
    """One connection that does not speak SSH, until its end: half a strike."""
    with connect(box, source) as probe:
        probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
        see_the_end(probe)


def proxy_command(box: Box, source: str, version: int = 2) -> str:
    """The option that makes ssh connect as the proxy does for a client at `source`."""
    words = ["-m", "tests.with_header", str(box.port), source, str(version)]
    return f"-oProxyCommand={sys.executable} {' '.join(words)}"


def ssh_as(box: Box, source: str, key: Key | None = None, user: str = "", version: int = 2) -> int:
    """A login by a real client whose connection carries the header for `source`."""
    command = [
        "ssh",
        *box.ssh_options(key),
        proxy_command(box, source, version),
        f"{user or box.user}@machine",
        "echo $SWARM_CLIENT",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if result.returncode == 0:
        assert result.stdout.strip() == source
    return result.returncode


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("source", ["203.0.113.7", "2001:db8::7"])
def test_the_real_client_is_known_everywhere(gate: Box, source: str, version: int) -> None:
    """In the session's environment, in the log, and in `swarm-agent sessions`."""
    assert ssh_as(gate, source, version=version) == 0
    assert gate.event("ssh.session.opened")["client"] == source
    assert gate.event("ssh.session.closed")["client"] == source


def test_sessions_shows_the_real_client(gate: Box) -> None:
    client = subprocess.Popen(
        gate.ssh_command("echo in; read -r x", options=[proxy_command(gate, "203.0.113.7")]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert client.stdout is not None
    client.stdout.readline()
    until(lambda: "203.0.113.7" in gate.agent("sessions").stdout, "the session")
    client.communicate(b"\n")


def test_header_byte_by_byte_with_the_clients_bytes_behind_it(gate: Box) -> None:
    """Only the header is consumed: the client's own first bytes reach sshd."""
    data = header(2, (ATTACKER, 5), ("10.0.0.1", 22))
    with connect(gate, None) as connection:
        for position in range(len(data) - 1):
            connection.sendall(data[position : position + 1])
        connection.sendall(data[-1:] + b"SSH-2.0-test\r\n")
        offer = b""
        while b"curve25519-sha256" not in offer:
            received = connection.recv(4096)
            assert received
            offer += received


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "malformed PROXY header"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n", "malformed PROXY header"),
        (b"PROXY " + b"x" * 200, "malformed PROXY header"),
        (header(2, (ATTACKER, 5), ("10.0.0.1", 22))[:20], "malformed PROXY header"),
        (b"PROXY TCP4 1.2.3.4", "PROXY header not complete in time"),
    ],
)
def test_bad_and_slow_headers_are_refused_and_told(gate: Box, data: bytes, reason: str) -> None:
    with connect(gate, None) as connection:
        connection.sendall(data)
        if reason.startswith("malformed") and len(data) == 20:
            connection.shutdown(socket.SHUT_WR)
        assert answer(connection) == b""
    assert gate.event("ssh.connections.refused", reason=reason)["client"] == "127.0.0.1"
    assert ssh_as(gate, ATTACKER) == 0


@pytest.mark.attack
def test_header_from_elsewhere_is_not_believed(make_box: BoxMaker) -> None:
    """A client that bypasses the proxy can neither frame another nor evade its record."""
    box = make_box().start(PROXIED | {"SWARM_PROXY_NETWORKS": "192.0.2.0/24"})
    box.event("boot.listening")
    with connect(box) as connection:
        assert answer(connection) == b""
    box.event("ssh.connections.refused", reason="not from the proxy's networks")


def test_proxy_protocol_is_required_on_fly_and_off_elsewhere(make_box: BoxMaker) -> None:
    box = make_box().start({"FLY_APP_NAME": "app", "SWARM_PROXY_NETWORKS": "127.0.0.1"})
    box.event("boot.listening")
    with connect(box, None) as connection:
        connection.sendall(b"SSH-2.0-x\r\n")
        assert answer(connection) == b""
    with connect(box) as connection:
        assert answer(connection) == b"SSH-"


def test_second_listener_takes_no_header(make_box: BoxMaker) -> None:
    from tests.claims import free_port

    port = free_port()
    box = boot(make_box(), {"SWARM_PRIVATE_LISTEN": f"127.0.0.1:{port}"})
    box.port = port
    assert box.ssh("echo $SWARM_CLIENT").stdout == "127.0.0.1\n"


def test_local_and_unknown_clients_get_in_and_are_never_banned(gate: Box) -> None:
    for _ in range(12):
        with connect(gate, None) as connection:
            connection.sendall(b"PROXY UNKNOWN\r\nGET / HTTP/1.0\r\n\r\n")
            see_the_end(connection)
    with connect(gate, None) as connection:
        connection.sendall(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")
        assert answer(connection) == b"SSH-"
    gate.event("ssh.client.unknown")
    assert len(gate.events("ssh.client.unknown")) == 1
    assert not gate.events("ban.started")


@pytest.mark.attack
def test_waiting_for_headers_is_bounded_and_others_get_in(gate: Box) -> None:
    silent = [connect(gate, None) for _ in range(300)]
    gate.event("ssh.connections.refused", reason="too many connections wait for a PROXY header")
    until(lambda: ssh_as(gate, ATTACKER) == 0, "a login after the slow ones were refused")
    for connection in silent:
        connection.close()


def test_failures_ban_the_client_and_nobody_else(gate: Box, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")
    for _ in range(5):
        assert ssh_as(gate, ATTACKER, stranger) == 255
    ban = gate.event("ban.started")
    assert (ban["network"], ban["seconds"], ban["times"]) == (ATTACKER, 600, 1)
    with connect(gate) as connection:
        assert answer(connection) == b""
    assert gate.event("ssh.connections.refused", reason="banned")["client"] == ATTACKER
    assert ssh_as(gate, "203.0.113.10") == 0
    shown = until(lambda: gate.agent("bans").stdout, "the control socket")
    assert ATTACKER in shown
    assert " min" in shown  # the number depends on the computer


def test_an_agent_with_many_keys_earns_nothing(gate: Box, tmp_path: Path) -> None:
    keys = [make_key(tmp_path / f"wrong{number}") for number in range(5)]
    options = [f"-oIdentityFile={key.path}" for key in keys]
    proxy = proxy_command(gate, ATTACKER)
    for _ in range(6):
        command = ["ssh", *options, *gate.ssh_options(), proxy, f"{gate.user}@machine", "true"]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert not gate.events("ban.started")
    assert not gate.events("ssh.connection.closed")


@pytest.mark.attack
def test_bare_connects_weigh_nothing_and_are_no_lines(gate: Box) -> None:
    for _ in range(30):
        connect(gate).close()
    assert ssh_as(gate, ATTACKER) == 0
    gate.event("ssh.session.closed")
    assert not gate.events("ban.started")
    assert not gate.events("ssh.connection.closed")


@pytest.mark.parametrize(
    "user",
    [
        "root from 198.51.100.7 port 22 ssh2",
        "x from 198.51.100.7 port 1 ssh2: ED25519 SHA256:" + "a" * 43,
        "a\nInvalid user b from 198.51.100.7 port 1",
        "Accepted publickey for dev from 198.51.100.7 port 1 ssh2",
    ],
)
@pytest.mark.attack
def test_a_user_name_cannot_move_the_blame(
    gate: Box, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2007-4321, CVE-2007-4323 and similar: the process identifies the client, not the text."""
    # An honest client refuses to send some of these names.
    monkeypatch.setattr("asyncssh.connection.saslprep", lambda name: name)

    async def guess() -> None:
        with pytest.raises(asyncssh.PermissionDenied):
            await asyncssh.connect(
                sock=connect(gate),
                username=user,
                client_keys=[str(gate.key.path)],
                known_hosts=None,
                config=None,
            )

    for _ in range(3):
        asyncio.run(guess())
    assert gate.event("ban.started")["network"] == ATTACKER
    assert len(gate.events("ban.started")) == 1
    with connect(gate, "198.51.100.7") as connection:
        assert answer(connection) == b"SSH-"
    assert not gate.events("ssh.session.opened")


def test_failures_between_logins_are_no_attack(gate: Box, tmp_path: Path) -> None:
    """For two reasons: a login clears the strikes, and protects its network for days."""
    stranger = make_key(tmp_path / "stranger")
    for _ in range(3):
        for _ in range(4):
            assert ssh_as(gate, ATTACKER, stranger) == 255
        assert ssh_as(gate, ATTACKER) == 0
    assert not gate.events("ban.started")


def test_a_ban_cuts_what_is_open_without_a_login_and_spares_sessions(gate: Box) -> None:
    session = subprocess.Popen(
        gate.ssh_command("echo in; read -r x; echo out", options=[proxy_command(gate, ATTACKER)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert session.stdout is not None
    session.stdout.readline()
    opened = [connect(gate) for _ in range(5)]
    for connection in opened:
        assert answer(connection) == b"SSH-"
    until(lambda: gate.agent("ban", ATTACKER).returncode == 0, "the ban")
    assert gate.event("ban.started")["cut"] == 5
    for connection in opened:
        with connection:
            see_the_end(connection)
    assert session.communicate(b"\n")[0] == b"out\n"


def test_ipv6_attackers_are_banned_by_their_network(gate: Box) -> None:
    for number in range(1, 12):
        garbage(gate, f"2001:db8:1:2::{number}") if number <= 10 else None
    assert gate.event("ban.started")["network"] == "2001:db8:1:2::/64"
    with connect(gate, "2001:db8:1:2:ffff::1") as connection:
        assert answer(connection) == b""
    with connect(gate, "2001:db8:1:3::1") as connection:
        assert answer(connection) == b"SSH-"


@pytest.mark.attack
def test_behind_nat64_each_client_is_banned_alone(gate: Box) -> None:
    for _ in range(10):
        garbage(gate, "64:ff9b::198.51.100.9")
    assert gate.event("ban.started")["network"] == "198.51.100.9"
    with connect(gate, "64:ff9b::198.51.100.10") as connection:
        assert answer(connection) == b"SSH-"


def test_bans_by_hand(gate: Box) -> None:
    until(lambda: gate.agent("health").returncode == 0, "the control socket")
    assert gate.agent("ban", "198.51.100.0/24", "--for", "1h").stdout == (
        "198.51.100.0/24 is banned for 1 h 00 min\n"
    )
    with connect(gate, "198.51.100.77") as connection:
        assert answer(connection) == b""
    assert gate.agent("unban", "198.51.100.0/24").stdout == "1 ban lifted\n"
    with connect(gate, "198.51.100.77") as connection:
        assert answer(connection) == b"SSH-"
    assert "is not banned" in gate.agent("unban", "198.51.100.1").stderr
    assert "did you mean 10.0.0.0/8" in gate.agent("ban", "10.0.0.1/8").stderr
    assert gate.agent("ban", "x", "--for", "soon").returncode == 2
    for number in range(3):
        gate.agent("ban", f"203.0.113.{number}")
    assert len(json.loads(gate.agent("bans", "--json").stdout)) == 3
    assert gate.agent("unban", "--all").stdout == "3 bans lifted\n"


@pytest.mark.root
def test_the_login_account_may_look_but_not_ban(gate: Box) -> None:
    until(lambda: gate.agent("health").returncode == 0, "the control socket")
    inside = ["nsenter", "-t", str(gate.machine.init), "-m", "-p", "setpriv"]
    inside += ["--reuid=1000", "--regid=1000", "--clear-groups"]
    environ = {"SWARM_RUN_DIR": "/run/swarm"}

    def as_user(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*inside, AGENT[0], *words], env=environ, capture_output=True, text=True, check=False
        )

    assert as_user("bans").returncode == 0
    refused = as_user("ban", "192.0.2.1")
    assert refused.returncode == 1
    assert "only root may do this" in refused.stderr


def test_dry_run_tells_and_bans_nobody(make_box: BoxMaker) -> None:
    box = boot(make_box(), {"SWARM_BAN_DRY_RUN": "on"})
    for _ in range(10):
        garbage(box)
    assert box.event("ban.started")["dry_run"] is True
    with connect(box) as connection:
        assert answer(connection) == b"SSH-"


def test_allow_and_deny_lists(make_box: BoxMaker) -> None:
    lists = {"SWARM_ALLOW_FROM": "192.0.2.0/24, 203.0.113.0/24", "SWARM_DENY_FROM": ATTACKER}
    box = boot(make_box(), lists)
    for source, expected in (
        ("192.0.2.1", b"SSH-"),
        ("203.0.113.8", b"SSH-"),
        (ATTACKER, b""),
        ("198.51.100.1", b""),
    ):
        with connect(box, source) as connection:
            assert answer(connection) == expected


@pytest.mark.attack
def test_caps_spare_other_clients_and_sessions(make_box: BoxMaker) -> None:
    caps = {"SWARM_MAX_UNAUTHENTICATED": "6", "SWARM_MAX_UNAUTHENTICATED_PER_CLIENT": "5"}
    box = boot(make_box(), caps)
    flood = [connect(box) for _ in range(8)]
    # The newest replace the oldest silent ones; one may have had its banner before.
    answers = [answer(connection) for connection in flood]
    assert answers[-5:] == [b"SSH-"] * 5
    unauthenticated = "swarm_unauthenticated_connections"
    until(lambda: float(box.metric(unauthenticated)) <= 5, "the oldest are gone")
    others = [connect(box, f"198.51.100.{number}") for number in range(3)]
    assert [answer(connection) for connection in others] == [b"SSH-"] * 3
    assert ssh_as(box, "192.0.2.1") == 0
    for connection in flood + others:
        connection.close()


def test_rate_of_one_client_is_limited(make_box: BoxMaker) -> None:
    box = boot(make_box(), {"SWARM_MAX_CONNECTIONS_PER_MINUTE": "3"})
    answers = []
    for _ in range(6):
        with connect(box) as connection:
            answers.append(answer(connection))
    assert answers[:3] == [b"SSH-"] * 3
    assert b"" in answers[3:]
    with connect(box, "198.51.100.1") as connection:
        assert answer(connection) == b"SSH-"


def state(box: Box) -> Path:
    return box.machine.volume / ".swarm" / "state.db"


def kept(box: Box) -> list[tuple[str, int]]:
    """The content of the database on the volume; empty while it is being created."""
    if not state(box).exists():
        return []
    with contextlib.closing(sqlite3.connect(state(box))) as database:
        try:
            return database.execute("SELECT network, times FROM bans").fetchall()
        except sqlite3.OperationalError:
            return []


def shift(box: Box, seconds: float) -> None:
    """Move every stored date, as if the wall clock was changed while the machine was off."""
    path = boot_list(box)
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    path.write_text(
        "".join(
            "\t".join(
                [row[0], str(float(row[1]) + seconds), str(float(row[2]) + seconds), *row[3:]]
            )
            + "\n"
            for row in rows
        )
    )
    with sqlite3.connect(state(box)) as database:
        database.execute("UPDATE bans SET since = since + ?, until = until + ?", (seconds,) * 2)


def boot_list(box: Box) -> Path:
    return state(box).with_name("bans")


def ban_once(box: Box) -> None:
    for _ in range(10):
        garbage(box)
    box.event("ban.started")
    # The database is written first, the boot's list after it.
    until(lambda: kept(box) and boot_list(box).exists(), "the ban in the database")
    until(lambda: ATTACKER in boot_list(box).read_text(), "the ban in the boot's list")


def test_bans_outlive_a_kill_and_history_goes_on(gate: Box) -> None:
    ban_once(gate)
    gate.machine.kill()
    boot(gate)
    with connect(gate) as connection:
        assert answer(connection) == b""
    until(lambda: gate.agent("unban", ATTACKER).returncode == 0, "the ban is lifted")
    until(lambda: not kept(gate), "the volume forgets it too")


def test_time_asleep_counts(gate: Box) -> None:
    ban_once(gate)
    gate.stop()
    shift(gate, -86400)
    boot(gate)
    with connect(gate) as connection:
        assert answer(connection) == b"SSH-"
    for _ in range(10):
        garbage(gate)
    # Banned again within a day: the first ban is remembered.
    assert gate.event("ban.started")["times"] == 2


def test_a_wall_clock_set_back_makes_no_ban_longer(gate: Box) -> None:
    ban_once(gate)
    gate.stop()
    shift(gate, 86400)
    boot(gate)
    until(lambda: gate.agent("bans", "--json").returncode == 0, "the control socket")
    [ban] = json.loads(gate.agent("bans", "--json").stdout)
    assert 500 < ban["seconds"] <= 600


@pytest.mark.parametrize("damage", [b"no database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_damaged_database_is_set_aside_and_ssh_works(gate: Box, damage: bytes) -> None:
    ban_once(gate)
    gate.stop()
    state(gate).write_bytes(damage)
    boot(gate)
    replaced = gate.event("state.replaced")
    aside = state(gate).parent / Path(replaced["kept_as"]).name
    assert aside.read_bytes() == damage
    assert ssh_as(gate, "192.0.2.1") == 0
    with connect(gate) as connection:
        assert answer(connection) == b""
    until(lambda: kept(gate) == [(ATTACKER, 1)], "the new database knows the ban")


@pytest.mark.parametrize("damage", [None, b"damaged", b"\xff\t1\t2"])
def test_what_the_boots_list_has_lost_the_database_knows(gate: Box, damage: bytes | None) -> None:
    ban_once(gate)
    gate.machine.kill()
    if damage is None:
        boot_list(gate).unlink()
    else:
        boot_list(gate).write_bytes(damage)
    boot(gate)

    def refused() -> bool:
        with connect(gate) as connection:
            return answer(connection) == b""

    until(refused, "the ban is known again")


@pytest.mark.root
def test_full_volume_costs_persistence_only(make_box: BoxMaker) -> None:
    box = make_box()
    fill = "mount -t tmpfs -o size=32k tmpfs /mnt; head -c 1000000 /dev/zero >/mnt/full"
    box.start(PROXIED, before=fill)
    until(lambda: box.log_path.read_text().count("boot.listening"), "the listener")
    for _ in range(10):
        garbage(box)
    box.event("ban.started")
    box.event("state.not_kept")
    with connect(box) as connection:
        assert answer(connection) == b""
    assert ssh_as(box, "192.0.2.1") == 0


@pytest.mark.root
def test_without_a_safe_place_bans_last_for_this_life(make_box: BoxMaker) -> None:
    """If the user can replace our folder, root opens nothing by name."""
    box = make_box().start(PROXIED, before="chown 1000 /mnt")
    assert "others may replace folders in /mnt" in box.event("agent.notice", part="state")["notice"]
    assert not state(box).exists()


@pytest.fixture(scope="module")
def internet() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.mark.root
@pytest.mark.attack
def test_a_process_in_the_machine_is_not_the_proxy(make_box: BoxMaker, internet: World) -> None:
    """Its own address is in the proxy's networks, but it can frame nobody."""
    box = make_box()
    box.start(PROXIED | {"SWARM_PROXY_NETWORKS": internet.network, "SWARM_LISTEN": f"*:{box.port}"})
    box.event("boot.listening")
    with socket.create_connection((internet.edge_address, box.port)) as inside:
        inside.settimeout(20)
        inside.sendall(header(2, (ATTACKER, 5), ("10.0.0.1", 22)))
        assert answer(inside) == b""
    box.event(
        "ssh.connections.refused",
        reason="not from the proxy's networks",
        client=internet.edge_address,
    )
    target, source = (internet.edge_address, box.port), (internet.stranger(1), 0)
    python = f"""
import socket
from deploy.header import header
s = socket.create_connection({target!r}, source_address={source!r})
s.sendall(header(2, ("{ATTACKER}", 5), ("10.0.0.1", 22)))
print(s.recv(4))
"""
    command = internet.client([sys.executable, "-c", python])
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == "b'SSH-'\n"


@pytest.mark.root
@pytest.mark.attack
def test_a_proxy_that_does_not_say_who_calls_is_never_banned(
    make_box: BoxMaker, internet: World
) -> None:
    """Everybody comes through it: its address must not be blamed."""
    box = make_box()
    box.start(PROXIED | {"SWARM_PROXY_NETWORKS": internet.network, "SWARM_LISTEN": f"*:{box.port}"})
    box.event("boot.listening")
    python = f"""
import socket
for _ in range(14):
    s = socket.create_connection(({internet.edge_address!r}, {box.port}))
    s.sendall(b"PROXY UNKNOWN\\r\\nGET / HTTP/1.0\\r\\n\\r\\n")
    try:
        while s.recv(100):
            pass
    except ConnectionResetError:
        pass
print("done")
"""
    command = internet.client([sys.executable, "-c", python])
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"done\n"
    until(lambda: len(box.events("ssh.connection.closed")) == 14, "all of them seen")
    assert not box.events("ban.started")


def hammer(command: list[str], stop: threading.Event, count: Callable[[], None]) -> None:
    while not stop.is_set():
        subprocess.run(command, capture_output=True, check=False)
        count()


@pytest.mark.root
@pytest.mark.timeout(300)
@pytest.mark.xdist_group("heavy")
@pytest.mark.attack
def test_fifty_attackers_are_banned_and_no_honest_login_is_refused(
    make_box: BoxMaker, internet: World, tmp_path: Path
) -> None:
    box = make_box()
    stranger = make_key(tmp_path / "stranger")
    boot(box)
    stop = threading.Event()
    tries = [0]

    def counted() -> None:
        tries[0] += 1

    def as_client(source: str, key: Key) -> list[str]:
        options = [*box.ssh_options(key), f"-oPort={internet.port}", f"-oBindAddress={source}"]
        # The first value wins in ssh: the edge's port before the machine's own.
        ordered = ["-F", "none", f"-oPort={internet.port}", *options[2:]]
        return internet.client(["ssh", *ordered, f"{box.user}@{internet.edge_address}", "echo in"])

    attackers = [internet.stranger(number) for number in range(1, 51)]
    with internet.edge(box.port):
        threads = [
            threading.Thread(target=hammer, args=(as_client(source, stranger), stop, counted))
            for source in attackers
        ]
        for thread in threads:
            thread.start()
        try:
            logins = 0
            while len(box.events("ban.started")) < 50 or logins < 10:
                result = subprocess.run(
                    as_client(internet.friend(1), box.key),
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert (result.returncode, result.stdout) == (0, "in\n"), result.stderr
                logins += 1
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    bans = {ban["network"]: ban["timestamp"] for ban in box.events("ban.started")}
    assert set(bans) == set(attackers)
    for closed in box.events("ssh.connection.closed"):
        if closed["client"] in bans:
            # Of connections that ended after the ban, only the ones that the ban closed.
            late = closed["timestamp"] > bans[closed["client"]]
            assert not late or closed["verdict"] == "cut", closed
    print(f"{tries[0]} tries of 50 attackers; {logins} honest logins, none refused")
