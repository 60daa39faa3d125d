"""The start, above all with faults: a clear error, and nothing is lost."""

import contextlib
import os
import re
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.access.hostkeys import NAME as HOST_KEY
from agent.init.proctree import descendants
from deploy.machine import AGENT
from tests.conftest import BoxMaker
from tests.support import Box, Key, make_key, until

NAME_OF_MACHINE = "a-machine"
PHASES = ["settings", "home", "keys", "hostkey", "sshd", "state", "listener"]


def kept_key(box: Box) -> Path:
    return box.machine.volume / ".swarm" / HOST_KEY


def test_phases_are_logged_in_order_with_their_durations(box: Box) -> None:
    box.event("boot.listening")
    phases = box.events("boot.phase")
    assert [phase["phase"] for phase in phases] == PHASES
    total = sum(phase["seconds"] for phase in phases)
    assert 0 < total <= box.event("boot.listening")["seconds"] + 0.001


def test_all_setting_problems_are_reported_at_once(make_box: BoxMaker, tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('stop_timeout = "20"\nlog_level = "loud"\n')
    box = make_box().start(
        {
            "SWARM_CONFIG": str(config),
            "SWARM_LISTEN": "eighty",
            "SWARM_LOGIN_GRACE_TIME": "soon",
            "SWARM_STOP_TIMEOUT_": "5s",
        }
    )
    assert box.machine.wait(30) == os.EX_CONFIG
    said = box.said()
    for part in (
        "SWARM_LISTEN = 'eighty' (environment): expected a port",
        "SWARM_LOGIN_GRACE_TIME = 'soon' (environment): expected a duration",
        "SWARM_STOP_TIMEOUT_ = '…' (environment): expected a known setting "
        "(did you mean SWARM_STOP_TIMEOUT?)",
        f"stop_timeout = '20' ({config}): expected a duration",
        f"log_level = 'loud' ({config}): expected one of debug, info, warning, error",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("content", "reason"),
    [("listen = ", "expected TOML"), ("a = [1]\n", "expected a known setting"), (None, "readable")],
)
def test_bad_settings_file(
    make_box: BoxMaker, tmp_path: Path, content: str | None, reason: str
) -> None:
    config = tmp_path / "agent.toml"
    if content is not None:
        config.write_text(content)
    box = make_box().start({"SWARM_CONFIG": str(config)})
    assert box.machine.wait(30) == os.EX_CONFIG
    assert reason in box.said()
    assert str(config) in box.said()


def test_environment_wins_over_file_wins_over_default(make_box: BoxMaker, tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('listen = "1"\nstop_timeout = "3s"\n')
    box = make_box().boot({"SWARM_CONFIG": str(config)})
    assert box.stop() == 0
    assert box.event("agent.stopping")["budget"] == 3.0


def test_bad_key_lines_are_told_and_cost_nobody_else(make_box: BoxMaker, key: Key) -> None:
    lines = ["ssh-ed25519 AAAA*", "", "# comment", key.public, "ssh-dss AAAAB3NzaC1kc3M= old"]
    box = make_box().boot({"SSH_AUTHORIZED_KEYS": "\n".join(lines)})
    assert box.ssh("echo in").stdout == "in\n"
    box.event("ssh.session.opened")
    refused = box.events("ssh.key.refused")
    assert [(event["source"], event["line"]) for event in refused] == [
        ("SSH_AUTHORIZED_KEYS", 1),
        ("SSH_AUTHORIZED_KEYS", 5),
    ]
    until(lambda: box.agent("keys").returncode == 0, "the control socket")
    listing = box.agent("keys")
    assert f"ann   ssh-ed25519  {key.fingerprint}  SSH_AUTHORIZED_KEYS line 4" in listing.stdout
    assert "refused: SSH_AUTHORIZED_KEYS line 1: the key is not base64" in listing.stderr


@pytest.mark.parametrize("form", ["plain", "escaped", "base64", "quoted"])
def test_keys_arrive_however_people_paste_them(
    make_box: BoxMaker, key: Key, tmp_path: Path, form: str
) -> None:
    import base64

    other = make_key(tmp_path / "bob")
    text = f"{other.public}\n{key.public}\n"
    value = {
        "plain": text,
        "escaped": text.replace("\n", "\\n"),
        "base64": base64.encodebytes(text.encode()).decode(),
        "quoted": f'"{text}"',
    }[form]
    box = make_box().boot({"SSH_AUTHORIZED_KEYS": value})
    assert box.ssh("true").returncode == 0
    box.event("ssh.session.opened")
    assert len(box.events("ssh.key.installed")) == 2


def test_one_key_per_person_is_known_by_the_persons_name(
    make_box: BoxMaker, key: Key, tmp_path: Path
) -> None:
    other = make_key(tmp_path / "id")
    box = make_box().boot({"SSH_AUTHORIZED_KEYS": "", "SSH_AUTHORIZED_KEYS_ZOE": other.public})
    command = ["ssh", *box.ssh_options(other), f"{box.user}@127.0.0.1", "true"]
    assert subprocess.run(command, check=False).returncode == 0
    assert box.event("ssh.session.opened")["key"] == "zoe"


def test_without_a_usable_key_it_runs_unhealthy_and_lets_nobody_in(make_box: BoxMaker) -> None:
    box = make_box().boot({"SSH_AUTHORIZED_KEYS": "nonsense"})
    assert "nobody can log in" in box.event("agent.problem", part="keys")["problem"]
    assert box.ssh("true").returncode == 255
    until(lambda: box.agent("health").stdout, "the control socket")
    health = box.agent("health")
    assert health.returncode == 1
    assert health.stdout.startswith("keys: no usable key")


def test_health_of_a_good_machine(box: Box) -> None:
    until(lambda: box.agent("health").returncode == 0, "a healthy machine")
    assert box.agent("health").stdout == "healthy\n"


@pytest.mark.root
def test_nothing_inside_the_machine_can_add_a_key(box: Box, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    box.ssh(f"mkdir -p ~/.ssh; echo {other.public!r} >~/.ssh/authorized_keys")
    box.ssh(f"echo {other.public!r} >>/run/swarm/authorized_keys")
    command = ["ssh", *box.ssh_options(other), f"{box.user}@127.0.0.1", "true"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 255


def test_host_key_survives_a_redeploy(make_box: BoxMaker) -> None:
    box = make_box().boot()
    first = box.event("ssh.hostkey")
    assert first["origin"] == "created"
    assert box.ssh("true").returncode == 0
    box.stop()
    box.boot()
    again = box.event("ssh.hostkey")
    assert (again["origin"], again["fingerprint"]) == ("restored", first["fingerprint"])
    # The client remembers the key of the first boot and would refuse another one.
    assert box.ssh("true").returncode == 0


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def plant_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def give_away(path: Path) -> None:
    path.chmod(0o644)


def hard_link(path: Path) -> None:
    os.link(path, path.with_name("second"))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [damage, plant_link, give_away, hard_link, make_folder])
def test_bad_host_key_is_set_aside_and_replaced(make_box: BoxMaker, harm: object) -> None:
    box = make_box().boot()
    before = box.event("ssh.hostkey")["fingerprint"]
    box.stop()
    harm(kept_key(box))  # type: ignore[operator]
    box.boot()
    replaced = box.event("ssh.hostkey.replaced")
    set_aside = [path.name for path in kept_key(box).parent.glob(f"{HOST_KEY}.refused-*")]
    assert [Path(replaced["kept_as"]).name] == set_aside
    after = box.event("ssh.hostkey")
    assert after["origin"] == "created"
    assert after["fingerprint"] != before
    (box.folder / "known_hosts").unlink(missing_ok=True)
    assert box.ssh("true").returncode == 0


@pytest.mark.root
@pytest.mark.parametrize("plant", ["link", "foreign"])
def test_planted_folder_on_the_volume_is_set_aside(
    make_box: BoxMaker, tmp_path: Path, plant: str
) -> None:
    """Root does not follow a folder that the volume's user put in the place of ours."""
    box = make_box()
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    box.machine.volume.mkdir(parents=True)
    folder = box.machine.volume / ".swarm"
    if plant == "link":
        folder.symlink_to(target)
    else:
        folder.mkdir(mode=0o700)
        os.chown(folder, 1000, 1000)
    box.boot()
    assert not list(target.iterdir())
    assert "/mnt/.swarm.refused-" in box.event("ssh.hostkey.replaced")["kept_as"]
    assert folder.stat().st_uid == 0
    assert not folder.is_symlink()
    assert kept_key(box).exists()


def test_kill_while_the_key_was_written_loses_nothing(make_box: BoxMaker) -> None:
    """A kill's remains (a half-written new file) do not affect the stored key."""
    box = make_box().boot()
    first = box.event("ssh.hostkey")["fingerprint"]
    box.machine.kill()
    kept_key(box).with_name(f".{HOST_KEY}.new").write_bytes(b"-----BEGIN")
    box.boot()
    assert box.event("ssh.hostkey")["fingerprint"] == first


def test_volume_that_cannot_be_used_costs_permanence_only(make_box: BoxMaker) -> None:
    box = make_box().boot({"SWARM_VOLUME": "/proc/nothing" if os.geteuid() == 0 else "/proc"})
    assert "lasts for this run only" in box.event("agent.notice", part="hostkey")["notice"]
    assert box.event("ssh.hostkey")["origin"] == "ephemeral"
    assert box.ssh("true").returncode == 0


@pytest.mark.root
@pytest.mark.parametrize("how", ["read-only", "full"])
def test_read_only_or_full_volume_costs_permanence_only(make_box: BoxMaker, how: str) -> None:
    fill = "mount -t tmpfs -o size=4k tmpfs /mnt; head -c 4096 /dev/zero >/mnt/full"
    spoil = "mount -t tmpfs -o ro tmpfs /mnt" if how == "read-only" else fill
    box = make_box().boot(before=spoil)
    assert box.event("ssh.hostkey")["origin"] == "ephemeral"
    assert box.ssh("true").returncode == 0


def test_missing_sshd(make_box: BoxMaker) -> None:
    box = make_box().start({"SWARM_SSHD": "/usr/sbin/no-sshd"})
    assert box.machine.wait(30) == os.EX_UNAVAILABLE
    problem = box.event("boot.failed")["problem"]
    assert "cannot run /usr/sbin/no-sshd" in problem
    assert "install openssh-server" in problem


def test_port_taken(make_box: BoxMaker) -> None:
    box = make_box()
    with socket.create_server(("127.0.0.1", box.port)):
        box.start()
        assert box.machine.wait(30) == os.EX_UNAVAILABLE
    assert f"cannot listen on 127.0.0.1:{box.port}" in box.event("boot.failed")["problem"]


def test_run_folder_that_others_can_write_is_refused(make_box: BoxMaker, tmp_path: Path) -> None:
    """Anybody who can write there could add a key."""
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o777)
    box = make_box().start({"SWARM_RUN_DIR": str(folder)})
    assert box.machine.wait(30) == os.EX_UNAVAILABLE
    assert f"{folder} belongs to uid" in box.event("boot.failed")["problem"]


@pytest.mark.root
@pytest.mark.parametrize("user", ["nosuchuser", "root"])
def test_login_account_that_cannot_be(make_box: BoxMaker, user: str) -> None:
    box = make_box().start({"SWARM_USER": user})
    assert box.machine.wait(30) == os.EX_CONFIG
    assert "SWARM_USER" in box.event("boot.failed")["problem"]


@pytest.mark.root
def test_default_login_account_is_uid_1000(make_box: BoxMaker) -> None:
    box = make_box().boot({"SWARM_USER": ""})
    assert box.event("boot.listening")["user"] == "dev"
    assert box.ssh("id -u").stdout == "1000\n"


@pytest.mark.root
def test_locked_account_is_told(make_box: BoxMaker) -> None:
    """sshd refuses accounts made by useradd without a password; the agent says it first."""
    box = make_box(password_field="!").boot()
    assert box.ssh("true").returncode == 255
    assert "dev is locked" in box.event("agent.problem", part="user")["problem"].replace(
        "the account ", ""
    )


def test_check_shows_settings_and_machine_and_starts_nothing(box: Box) -> None:
    environ = box.environ | {
        "SWARM_VOLUME": str(box.machine.volume),
        "PATH": os.environ["PATH"],
        "SWARM_STOP_TIMEOUT": "7s",
        "SWARM_RUN_DIR": str(box.folder / "none"),
    }
    if os.geteuid() == 0:
        environ["SWARM_USER"] = "daemon"
    result = subprocess.run(
        [AGENT[0], "check"], env=environ, capture_output=True, text=True, check=False
    )
    assert re.search(r"SWARM_STOP_TIMEOUT +7s +environment", result.stdout)
    assert "SWARM_MAXRETRY" not in result.stdout
    assert "no agent runs" in result.stderr
    assert "ok    key: ann: ssh-ed25519" in result.stdout
    assert "sshd found" in result.stdout
    bad = subprocess.run(
        [AGENT[0], "check"],
        env=environ | {"SWARM_SSHD": "/none", "SSH_AUTHORIZED_KEYS": "x", "SWARM_VOLUME": "/none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert bad.returncode == 1
    assert bad.stdout.count("FAIL") >= 4


def test_no_secret_in_log_or_process_list(make_box: BoxMaker) -> None:
    secret = f"sk-{os.urandom(8).hex()}"
    box = make_box().boot({"SOME_API_KEY": secret, "SWARM_LOG_LEVEL": "debug"})
    client = subprocess.Popen(
        box.ssh_command("echo in; read -r line"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert client.stdout is not None
    client.stdout.readline()
    box.event("ssh.session.opened")
    below = [process.pid for process in descendants(box.machine.init)]
    assert len(below) >= 3  # two of sshd, and the shell
    for pid in below:
        with contextlib.suppress(OSError):  # it has exited
            path = Path(f"/proc/{pid}")
            assert secret.encode() not in (path / "cmdline").read_bytes()
            assert secret.encode() not in (path / "environ").read_bytes()
    client.communicate(b"\n")
    assert secret not in box.said()


@pytest.mark.root
def test_control_socket_is_for_root_and_the_login_account_only(box: Box) -> None:
    until(lambda: box.agent("health").returncode == 0, "the control socket")
    ask = "import socket;s=socket.socket(socket.AF_UNIX);s.connect('/run/swarm/agent.sock');"
    ask += (
        "s.sendall(b'GET /v1/health HTTP/1.0\\r\\n\\r\\n');print(s.recv(100).split()[1].decode())"
    )
    inside = ["nsenter", "-t", str(box.machine.init), "-m", "-p"]
    python = ["/usr/bin/python3", "-c", ask]

    def answer(*prefix: str) -> subprocess.CompletedProcess[str]:
        command = [*inside, *prefix, *python]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert answer("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups").stdout == "200\n"
    assert answer("setpriv", "--reuid=65534", "--regid=1000", "--clear-groups").stdout == "403\n"
    stranger = answer("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    assert "PermissionError" in stranger.stderr


def test_control_socket_that_crashes_is_started_again_and_ssh_goes_on(make_box: BoxMaker) -> None:
    box = make_box()
    run_dir = Path("/run/swarm") if box.machine.namespaces else box.folder / "run"
    box.boot(before=f"mkdir -p {run_dir}/agent.sock")
    box.event("agent.part.failed", part="control socket")
    assert box.ssh("echo in").stdout == "in\n"
    where = Path(f"/proc/{box.machine.init}/root{run_dir}/agent.sock")
    where.rmdir()
    until(lambda: box.agent("health").returncode == 0, "the control socket is back")


@pytest.mark.root
def test_nothing_more_is_read_before_a_client_who_waits_has_its_banner(
    make_box: BoxMaker, tmp_path: Path
) -> None:
    """From a cold disk, other reads would delay that client."""
    go_on, sshd = tmp_path / "go-on", tmp_path / "sshd"
    sshd.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = -t ] || until [ -e "{go_on}" ]; do sleep 0.05; done\n'
        'exec /usr/sbin/sshd "$@"\n'
    )
    sshd.chmod(0o755)
    for _ in range(5):
        box = make_box()
        with ThreadPoolExecutor() as pool:
            connecting = pool.submit(waiting_from_the_start, box)
            named = {"FLY_APP_NAME": NAME_OF_MACHINE, "SWARM_PROXY_PROTOCOL": "off"}
            box.start({"SWARM_SSHD": str(sshd), **named})
        with connecting.result() as client:
            if parts_within(box, 1.0):
                continue  # the client came too late: this computer is busy
            go_on.touch()
            assert client.recv(4) == b"SSH-"
            until(lambda: parts_within(box, 0.0), "the parts")  # noqa: B023
            return
    pytest.fail("the parts were made at once, five times")


def waiting_from_the_start(box: Box) -> socket.socket:
    """A connection that is opened as soon as there is a listener."""

    def connect() -> socket.socket | None:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", box.port))
        return None

    end = time.monotonic() + 60
    while (client := connect()) is None:
        assert time.monotonic() < end, box.said()
    return client


def parts_within(box: Box, seconds: float) -> bool:
    """Whether the first part (the host name) starts within so many seconds."""
    time.sleep(seconds)
    words = ["nsenter", "-t", str(box.machine.init), "-u", "hostname"]
    return subprocess.check_output(words, text=True).strip() == NAME_OF_MACHINE
