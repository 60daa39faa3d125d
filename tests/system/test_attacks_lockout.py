"""Nobody is locked out: known clients are served first, whatever strangers do."""

import socket
import subprocess
from pathlib import Path

import pytest

from agent.init.proctree import descendants
from tests.claims import free_port
from tests.conftest import BoxMaker
from tests.support import Box, command_lines, let_others_in, ready, until
from tests.system.test_gate import answer, boot, connect, proxy_command, ssh_as

OWNER, NEWCOMER = "192.0.2.1", "192.0.2.77"
NETWORKS = 140

pytestmark = pytest.mark.attack


def hold_silent(box: Box) -> list[object]:
    """Open one silent connection from each of many networks."""
    return [connect(box, f"198.51.100.{number}") for number in range(NETWORKS)]


def test_the_owner_logs_in_while_many_networks_hold_silent_connections(
    make_box: BoxMaker,
) -> None:
    """The listener is full; a known client gets in every time, and so does a newcomer."""
    # Silent connections do not time out while the test runs.
    box = boot(make_box(), {"SWARM_LOGIN_GRACE_TIME": "10m"})
    assert ssh_as(box, OWNER) == 0
    for _ in range(3):
        silent = hold_silent(box)
        assert [ssh_as(box, OWNER) for _ in range(3)] == [0, 0, 0]
        del silent
    silent = hold_silent(box)
    assert ssh_as(box, NEWCOMER) == 0
    del silent


def restarted_with_a_login_before(make_box: BoxMaker) -> Box:
    """A machine that was killed after it had stored the owner's login, and booted again."""
    box = boot(make_box())
    assert ssh_as(box, OWNER) == 0
    page = box.machine.volume / ".swarm" / "known"
    until(lambda: page.exists() and OWNER in page.read_text(), "the page of known networks")
    box.machine.kill()
    boot(box)
    return box


def test_who_was_here_before_is_known_after_a_restart(make_box: BoxMaker) -> None:
    box = restarted_with_a_login_before(make_box)
    silent = hold_silent(box)
    assert ssh_as(box, OWNER) == 0
    del silent


def test_who_was_here_before_a_restart_is_slowed_and_not_banned(make_box: BoxMaker) -> None:
    box = restarted_with_a_login_before(make_box)
    for _ in range(5):
        assert ssh_as(box, OWNER, user="nosuchuser") != 0
    assert ssh_as(box, OWNER) == 0
    assert not box.events("ban.started")


def test_who_fills_one_door_pushes_nobody_out_of_the_other(make_box: BoxMaker) -> None:
    port = free_port()
    few = {"SWARM_PRIVATE_LISTEN": f"127.0.0.1:{port}", "SWARM_MAX_UNAUTHENTICATED": "5"}
    box = boot(make_box(), few | {"SWARM_LOGIN_GRACE_TIME": "10m"})
    public = [connect(box, f"198.51.100.{number}") for number in range(5)]
    until(lambda: box.metric("swarm_unauthenticated_connections") == "5.0", "all at the door")
    private = [socket.create_connection(("127.0.0.1", port)) for _ in range(12)]
    box.event("ssh.connections.refused")
    for each in public:
        assert answer(each) == b"SSH-"
        each.setblocking(False)
        with pytest.raises(BlockingIOError):
            while each.recv(100):
                pass
    for each in (*public, *private):
        each.close()


def test_neither_the_machines_own_addresses_nor_the_private_door_fill_the_public_one(
    make_box: BoxMaker,
) -> None:
    port = free_port()
    box = boot(make_box(), {"SWARM_PRIVATE_LISTEN": f"127.0.0.1:{port}"})
    inside = subprocess.Popen(
        ["python3", "-c", FILL, str(port)], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    try:
        assert inside.stdout is not None
        assert inside.stdout.readline() == b"full\n"
        assert ssh_as(box, OWNER) == 0
        assert ssh_as(box, NEWCOMER) == 0
    finally:
        inside.communicate(b"\n")


FILL = """
import socket, sys
held = []
for number in range(200):
    probe = socket.socket()
    probe.bind((f"127.1.0.{number % 250 + 1}", 0))
    probe.connect(("127.0.0.1", int(sys.argv[1])))
    held.append(probe)
print("full", flush=True)
sys.stdin.readline()
"""


def test_failures_of_a_neighbour_cost_the_owner_no_login(make_box: BoxMaker) -> None:
    """Behind one NAT both have one address; one of them holds a key."""
    box = boot(make_box())
    command = box.ssh_command("echo in; read -r x", options=[proxy_command(box, OWNER)])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"in\n"
        for _ in range(8):
            assert ssh_as(box, OWNER, user="nosuchuser") != 0
        assert ssh_as(box, OWNER) == 0
        for _ in range(4):
            assert ssh_as(box, OWNER, user="nosuchuser") != 0
        session.communicate(b"\n")
    assert not box.events("ban.started")


def test_asking_for_host_keys_is_no_strike(make_box: BoxMaker) -> None:
    """ssh-keyscan does that, for each kind of key that it knows."""
    box = boot(make_box())
    odd = [proxy_command(box, OWNER), "-oHostKeyAlgorithms=ecdsa-sha2-nistp256"]
    for _ in range(12):
        assert box.ssh("true", options=odd).returncode == 255
    assert not box.events("ssh.connection.closed")
    assert not box.events("ban.started")
    assert ssh_as(box, OWNER) == 0


@pytest.mark.root
def test_a_broken_account_is_reported_and_nobodys_strike(make_box: BoxMaker) -> None:
    box = boot(make_box(password_field="!"))
    for _ in range(4):
        assert ssh_as(box, OWNER) != 0
    assert not box.events("ban.started")
    problem = until(lambda: box.agent("health").stdout, "an answer about health")
    assert "is locked" in problem
    assert box.event("ssh.account.refused")


def test_a_session_environment_that_is_too_large_keeps_nobody_out(make_box: BoxMaker) -> None:
    box = make_box()
    large = {"SWARM_SESSION_ENV": "LARGE SMALL", "LARGE": "x" * (120 << 10), "SMALL": "here"}
    box.boot(large)
    assert box.ssh("echo $SMALL").stdout == "here\n"
    assert "LARGE, because of their size" in box.event("agent.notice", part="session_env")["notice"]


@pytest.mark.root
def test_sshd_that_hangs_when_asked_holds_up_neither_the_boot_nor_a_reload(
    make_box: BoxMaker, tmp_path: Path
) -> None:
    """`sshd -t` never exits; SSH is served anyway, and health reports it."""
    program = tmp_path / "sshd"
    program.write_text('#!/bin/sh\n[ "$1" = -t ] && exec sleep 600\nexec /usr/sbin/sshd "$@"\n')
    program.chmod(0o755)
    let_others_in(tmp_path)
    box = make_box().boot({"SWARM_SSHD": str(program)})
    assert box.ssh("echo in").stdout == "in\n"
    until(lambda: "used unchecked" in box.agent("health").stdout, "the reason in health")


@pytest.mark.root
@pytest.mark.parametrize("program", ["/usr/sbin/sshd", "/usr/bin/ssh-keygen"])
def test_a_stop_is_heard_while_a_program_that_ssh_waits_for_hangs(
    make_box: BoxMaker, tmp_path: Path, program: str
) -> None:
    fake = tmp_path / "hangs"
    fake.write_text("#!/bin/sh\nexec sleep 600\n")
    fake.chmod(0o755)
    box = make_box().start(before=f"mount --bind {fake} {program}")
    until(lambda: "sleep 600" in below(box), f"{program} hanging")
    box.machine.signal()
    assert box.machine.wait(10) == 0


@pytest.mark.root
def test_a_stop_is_heard_while_a_reload_waits_for_sshd(make_box: BoxMaker, tmp_path: Path) -> None:
    program, config = tmp_path / "sshd", tmp_path / "agent.toml"
    config.write_text("login_grace_time = '30s'\n")
    flag = tmp_path / "hang"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = -t ] && [ -e {flag} ] && exec sleep 600\nexec /usr/sbin/sshd "$@"\n'
    )
    program.chmod(0o755)
    let_others_in(tmp_path)
    box = make_box().boot({"SWARM_SSHD": str(program), "SWARM_CONFIG": str(config)})
    ready(box)
    flag.touch()
    config.write_text("login_grace_time = '20s'\n")
    command, environ = box.agent_command("reload")
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL):
        until(lambda: "sleep 600" in below(box), "sshd -t hanging")
        box.machine.signal()
        assert box.machine.wait(10) == 0


NFT = """#!/bin/sh
[ -e {flag} ] && exec sleep 600
echo '{{"nftables": []}}'
"""


class Nft:
    """Replaces the real nft: it answers, or hangs while `hangs` exists."""

    def __init__(self, folder: Path) -> None:
        self.hangs = folder / "hangs"
        program = folder / "nft"
        program.write_text(NFT.format(flag=self.hangs))
        program.chmod(0o755)
        let_others_in(folder)
        self.before = f"mount --bind {program} /usr/sbin/nft"


@pytest.fixture
def nft(tmp_path: Path) -> Nft:
    return Nft(tmp_path)


@pytest.mark.root
def test_nft_that_hangs_holds_up_neither_the_boot_nor_a_stop(make_box: BoxMaker, nft: Nft) -> None:
    nft.hangs.touch()
    box = make_box().boot({"SWARM_EGRESS": "standard"}, before=nft.before)
    assert box.ssh("echo in").stdout == "in\n"
    until(lambda: "not restricted: nft was not done" in box.agent("health").stdout, "the reason")
    assert box.stop() == 0


@pytest.mark.root
def test_strict_rules_with_nft_that_hangs_end_the_boot(make_box: BoxMaker, nft: Nft) -> None:
    """Nobody is let in without the configured protection."""
    nft.hangs.touch()
    box = make_box().start({"SWARM_EGRESS": "strict"}, before=nft.before)
    assert box.machine.wait(60) != 0
    assert "nft was not done" in box.event("boot.failed")["problem"]


@pytest.mark.root
def test_a_stop_is_heard_while_nft_hangs_at_boot(make_box: BoxMaker, nft: Nft) -> None:
    nft.hangs.touch()
    box = make_box().start({"SWARM_EGRESS": "strict"}, before=nft.before)
    until(lambda: "sleep 600" in below(box), "nft hanging")
    box.machine.signal()
    assert box.machine.wait(10) == 0
    assert not box.events("boot.failed")


@pytest.mark.root
@pytest.mark.long
def test_nft_that_hangs_holds_up_neither_a_reload_nor_the_stop_after_it(
    make_box: BoxMaker, nft: Nft
) -> None:
    """The previous rules stay in force; their removal at the end is abandoned in time."""
    box = ready(make_box().boot({"SWARM_EGRESS": "standard"}, before=nft.before))
    command = box.ssh_command("echo in; read -r x; echo out")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"in\n"
        nft.hangs.touch()
        assert box.agent("reload").returncode == 0
        notice = box.event("agent.notice", part="egress")["notice"]
        assert "the previous rules stay in force: nft was not done" in notice
        assert box.ssh("echo in").stdout == "in\n"
        assert session.communicate(b"\n")[0] == b"out\n"
    assert box.stop() == 0


def below(box: Box) -> str:
    """The command lines of all processes in the machine."""
    try:
        return "\n".join(command_lines(each.pid for each in descendants(box.machine.init)))
    except ProcessLookupError:
        return ""  # it is about to begin
