"""Operations on running machines: sleep, size, people, copies, moves; on one and on several."""

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.swarm.fleet import WORTH_IT
from deploy.swarm.life import AGENT
from tests.laptop import REAL, SWARM, Laptop
from tests.support import make_key, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(1500)]

ASLEEP = ("stopped", "suspended")
IMAGE = ("--image", "registry.example/swarm:1")


STORM = """
from agent.cli import client
from agent.observe.reports import BanOrder, BanReport
for number in range(1005):
    order = BanOrder(f"10.{number // 250}.{number % 250}.0/24", None)
    client.ask("POST", "/v1/bans", BanReport, order)
"""


def running(word: str) -> bool:
    """Whether a process of this computer has this word on its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if word.encode() in path.read_bytes().split(b"\0"):
                return True
    return False


def init_of(machine: str) -> int:
    """The process id of a machine's PID 1 on this computer."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            inside = re.search(r"^NSpid:.*\t1$", (folder / "status").read_text(), re.MULTILINE)
            if inside and f"FLY_MACHINE_ID={machine}" in (folder / "environ").read_text():
                return int(folder.name)
    raise AssertionError(f"no process is the init of {machine}")


@pytest.fixture
def tmux() -> Iterator[None]:
    """The tmux server of the login account, which all machines of this computer share (/tmp)."""
    with open("/tmp/swarm-tests-tmux.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_sleep_wake_park_restart_and_stop(shared_laptop: Laptop) -> None:
    laptop = shared_laptop
    assert "asleep (suspended)" in laptop.well("sleep", "box")
    assert "box was asleep (suspended) already" in laptop.well("sleep", "box")
    assert "box is awake" in laptop.well("wake", "box")
    assert laptop.state("box") == "started"

    # Parked: no login wakes it, and parking does not start it.
    starts = len([call for call in laptop.calls if " start " in call])
    assert "box is parked" in laptop.well("sleep", "box", "--stay")
    assert laptop.state("box") == "stopped"
    assert len([call for call in laptop.calls if " start " in call]) == starts
    config = str(laptop.ssh_folder / "config")
    words = ["ssh", "-F", config, "-o", "BatchMode=yes", "-o", "ConnectTimeout=3", "box", "true"]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 255
    assert "asleep (parked)" in laptop.well("status", "box")
    assert "it is parked" in laptop.well("doctor", "box")
    assert "parked" in laptop.well("list")
    laptop.well("wake", "box")
    assert laptop.ssh("box", "echo in") == "in\n"

    boot = laptop.ssh("box", "cat /proc/1/stat").split()[21]
    assert "box is awake" in laptop.well("restart", "box")
    assert laptop.ssh("box", "cat /proc/1/stat").split()[21] != boot
    assert "box is asleep (stopped)" in laptop.well("stop", "box")
    assert laptop.state("box") == "stopped"
    laptop.well("wake", "box")


def test_states_on_the_way_are_waited_for(shared_laptop: Laptop) -> None:
    laptop = shared_laptop
    laptop.well("wake", "box")
    laptop.change(pace=1.5)
    try:
        machine = laptop.machines("box")[0].id
        laptop.fly("machine", "stop", machine, "--app", "box")
        until(lambda: laptop.state("box") == "stopping", "the stop's begin")
        assert "box is awake" in laptop.well("wake", "box")
        assert laptop.state("box") == "started"
    finally:
        laptop.change(pace=0.0)


def test_sleep_works_where_the_agent_hangs(shared_laptop: Laptop) -> None:
    laptop = shared_laptop
    laptop.well("wake", "box")
    init = init_of(laptop.machines("box")[0].id)
    os.kill(init, signal.SIGSTOP)
    try:
        said = laptop.well("sleep", "box")
    finally:
        os.kill(init, signal.SIGCONT)
    assert "box is asleep" in said
    assert "its agent did not do it" in said
    assert laptop.state("box") in ASLEEP
    # The order was abandoned with the attempt: after waking, the agent ignores it.
    laptop.well("wake", "box")
    machine = laptop.machines("box")[0].id
    why = ["machine", "exec", machine, f"{AGENT} why --json", "--app", "box"]
    said = until(lambda: laptop.fly(*why).stdout, "an answer to what was asked after the order")
    assert json.loads(said)["state"] == "awake"
    assert laptop.state("box") == "started"
    assert init_of(machine) == init


def test_many_machines_are_asked_without_a_flyctl_for_each(shared_laptop: Laptop) -> None:
    laptop = shared_laptop
    laptop.well("wake", "box")
    others = [f"other-{number}" for number in range(WORTH_IT)]
    for name in others:
        assert laptop.fly("apps", "create", name, "--yes").returncode == 0
        folder = laptop.folder / "config" / "machines" / name
        folder.mkdir()
        (folder / "state.json").write_text("{}")
    try:
        before = len(laptop.calls)
        said = laptop.well("status", "--all")
        assert "box is awake" in said
        assert "cost so far" in said
        found = json.loads(laptop.well("status", "--all", "--json"))
        assert [each["row"]["state"] for each in found] == ["awake", *["no machine"] * WORTH_IT]
        assert found[0]["agent"]["version"]
        # The log is read to find who keeps waking a machine.
        assert {call.split()[0] for call in laptop.calls[before:]} <= {"logs"}
        before = len(laptop.calls)
        # If the API gives no usable answer, flyctl asks again and explains.
        laptop.change(fail=[500])
        assert "box" in laptop.well("list")
        assert len(laptop.calls) == before + 1
    finally:
        for name in others:
            laptop.fly("apps", "destroy", name, "--yes")
            shutil.rmtree(laptop.folder / "config" / "machines" / name)


def test_a_host_that_does_not_answer_is_named(shared_laptop: Laptop) -> None:
    laptop = shared_laptop
    laptop.change(hosts=[{"name": "host-ams", "region": "ams", "status": "unreachable"}])
    try:
        for words in (("status", "box"), ("list",)):
            assert "unreachable" in laptop.well(*words)
        assert "Fly.io cannot reach the host" in laptop.swarm("doctor", "box").stdout
        said = laptop.fails("down", "box", given="box\n")
        assert "swarm up box, or --no-backup" in said
        for words in (("sleep", "box"), ("wake", "box"), ("restart", "box")):
            assert "cannot reach the host" in laptop.fails(*words)
    finally:
        laptop.change(hosts=[{"name": f"host-{each}", "region": each} for each in ("ams", "fra")])
    assert laptop.app("box")


def test_people_secrets_settings_and_sizes(shared_laptop: Laptop, tmp_path: Path) -> None:
    laptop = shared_laptop
    laptop.well("wake", "box")
    bob = make_key(tmp_path / "bob")
    assert "last key" in laptop.fails("keys", "remove", "box", "ann")
    said = laptop.well("keys", "add", "box", f"{bob.path}.pub", "--person", "bob")
    assert "bob may log in" in said
    people = json.loads(laptop.well("keys", "list", "box", "--json"))
    assert {each["person"] for each in people} == {"ann", "bob"}
    # Without --person it would replace the user's own key: it asks first.
    assert laptop.swarm("keys", "add", "box", f"{bob.path}.pub", given="n\n").returncode != 0
    (laptop.folder / "no.pub").write_text("not a key\n")
    assert "no usable key" in laptop.fails("keys", "add", "box", "no.pub", "--person", "x")
    as_bob = ["-o", "IdentitiesOnly=yes", "-o", "IdentityFile=none", "-i", str(bob.path)]
    assert laptop.ssh("box", "echo in", *as_bob) == "in\n"
    laptop.well("keys", "remove", "box", "bob")
    assert "bob" not in laptop.well("keys", "list", "box")

    (laptop.folder / "env").write_text("GH_TOKEN=t\nMINE=m\n")
    assert "they take effect" in laptop.well("secrets", "set", "box", "env", "--later")
    assert laptop.ssh("box", "echo $GH_TOKEN") == "\n"
    laptop.well("secrets", "set", "box", "env", "--now")
    assert "GH_TOKEN" in laptop.well("secrets", "list", "box")
    assert laptop.ssh("box", "echo $GH_TOKEN $MINE") == "t m\n"
    assert "no secret NOPE" in laptop.fails("secrets", "unset", "box", "NOPE")
    laptop.well("secrets", "unset", "box", "GH_TOKEN", "--now")
    assert laptop.ssh("box", "echo $GH_TOKEN") == "\n"

    assert "SWARM_STOP_TIMEOUT=20s" in laptop.well("config", "box")
    assert "SWARM_IDLE_TIMEOUT" in laptop.fails("config", "box", "SWARM_IDLE_TIMEOUT=soon")
    laptop.well("config", "box", "SWARM_IDLE_TIMEOUT=47m", "--yes")
    assert "SWARM_IDLE_TIMEOUT=47m   (of this machine)" in laptop.well("config", "box")
    laptop.well("wake", "box")
    environ = Path(f"/proc/{init_of(laptop.machines('box')[0].id)}/environ").read_text()
    assert "SWARM_IDLE_TIMEOUT=47m" in environ
    laptop.well("config", "box", "--unset", "SWARM_IDLE_TIMEOUT", "--yes")
    assert "IDLE_TIMEOUT" not in laptop.well("config", "box")

    assert "takes 1 GB to 8 GB" in laptop.fails("resize", "box", "shared-cpu-4x", "--memory", "16")
    said = laptop.well("resize", "box", "shared-cpu-4x", "--memory", "4", "--yes")
    assert "stops and starts" in said
    assert "shared-cpu-4x with 4 GB" in laptop.well("status", "box")
    assert "shared-cpu-4x with 4096 MB" in laptop.well("usage", "box")
    [row] = [row for row in json.loads(laptop.well("list", "--json")) if row["name"] == "box"]
    assert row["cost"].startswith("about USD "), row
    laptop.well("resize", "box", "--volume", "12")
    assert [each.size_gb for each in laptop.volumes("box")] == [12]


def test_a_key_is_rotated_and_an_incident_is_ended(laptop: Laptop) -> None:
    """The steps of docs/security.md, one after the other."""
    laptop.up("box")
    laptop.ssh("box", "echo mine >/mnt/file")
    before = laptop.well("backup", "box").split()[0]

    new = make_key(laptop.folder / "new")
    laptop.well("up", "box", "--yes", "--key", f"{new.path}.pub")
    assert laptop.ssh("box", "echo in") == "in\n"
    config = ["ssh", "-F", str(laptop.ssh_folder / "config"), "-o", "BatchMode=yes"]
    people = json.loads(laptop.well("keys", "list", "box", "--json"))
    assert [each["person"] for each in people] == ["ann"]
    assert new.fingerprint in laptop.ssh("box", "swarm-agent keys --json")
    assert laptop.key.fingerprint not in laptop.ssh("box", "swarm-agent keys --json")

    intruder = subprocess.Popen(
        [*config, "box", "sleep 1000"], env=laptop.environ, stderr=subprocess.DEVNULL
    )

    def sessions() -> list[dict[str, object]]:
        seen: list[dict[str, object]] = json.loads(laptop.ssh("box", "swarm-agent sessions --json"))
        return sorted(seen, key=lambda each: str(each["since"]))

    until(lambda: len(sessions()) > 1, "the session")
    assert "ann" in laptop.ssh("box", "swarm-agent history")
    kick = f"{AGENT} kick {sessions()[0]['id']}"
    machine = laptop.machines("box")[0].id
    assert laptop.fly("machine", "exec", machine, kick, "--app", "box").returncode == 0
    assert intruder.wait(60) != 0
    assert "is parked" in laptop.well("sleep", "box", "--stay")
    done = subprocess.run([*config, "box", "true"], env=laptop.environ, capture_output=True)
    assert done.returncode == 255
    assert re.search(r"snapshot vs_\w+", laptop.well("backup", "box", "--snapshot"))
    assert "ssh.session.closed" in laptop.well("logs", "box")

    laptop.up("other")
    laptop.well("restore", "other", before, "--from", "backups", "--of", "box", "--yes")
    assert laptop.ssh("other", "cat /mnt/file") == "mine\n"
    assert "box is gone" in laptop.well("down", "box", "--no-backup", given="box\n")


@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        *((word, "box") for word in ("status", "usage", "audit", "doctor", "agents", "logs")),
        *((word, "list", "box") for word in ("keys", "secrets")),
        ("config", "box"),
    ],
    ids=" ".join,
)
def test_what_shows_something_has_json(shared_laptop: Laptop, words: tuple[str, ...]) -> None:
    laptop = shared_laptop
    laptop.well("wake", "box")
    found = laptop.swarm(*words, "--json").stdout
    if words[0] == "logs":  # one record per line, as the agent wrote it
        assert any("event" in json.loads(line) for line in found.splitlines() if line[0] == "{")
    else:
        assert json.loads(found)


def test_quiet_and_without_a_terminal(shared_laptop: Laptop) -> None:
    laptop = shared_laptop
    done = laptop.swarm("up", "box", "--yes", "--rebuild", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = laptop.swarm("up", "box", "--yes", "--rebuild")
    assert "deploy of registry.example/swarm:1\n" in done.stderr
    assert "ssh box works\n" in done.stderr  # no clock without a terminal
    assert "\x1b" not in done.stdout + done.stderr


def test_audit_sees_a_storm_of_bans(shared_laptop: Laptop) -> None:
    laptop = shared_laptop
    laptop.well("wake", "box")
    said = laptop.well("audit", "box")
    assert "sshd accepts keys only, no root, no passwords" in said
    assert "0 addresses are banned" in said
    # A thousand commands would take minutes: one process sends a thousand requests.
    storm = laptop.folder / "storm.py"
    storm.write_text(STORM)
    machine = laptop.machines("box")[0].id
    words = ["machine", "exec", machine, f"{sys.executable} {storm}", "--app", "box"]
    assert laptop.fly(*words, "--timeout", "60").returncode == 0
    found = json.loads(laptop.swarm("audit", "box", "--json").stdout)
    [bans] = [each for each in found if "are banned" in each["says"]]
    assert bans["level"] == "warn"
    assert int(bans["says"].split()[0]) > 1000
    assert "SWARM_ALLOW_FROM" in bans["todo"]


def test_a_snapshot_is_waited_for_and_put_in_place(laptop: Laptop) -> None:
    laptop.up("box")
    laptop.ssh("box", "echo old >/mnt/file; sync")
    said = laptop.well("backup", "box", "--snapshot")
    snapshot, volume = re.findall(r"vs_\w+", said)[0], laptop.volumes("box")[0].id
    assert volume in said
    assert snapshot in laptop.well("backup", "box", "--snapshot", "--list")
    laptop.ssh("box", "echo new >/mnt/file; sync")
    assert "swarm restore box --snapshot" in laptop.fails(
        "up", "box", "--yes", "--snapshot", snapshot
    )
    said = laptop.well("restore", "box", "--snapshot", snapshot, "--yes")
    assert volume in said
    assert laptop.ssh("box", "cat /mnt/file") == "old\n"
    assert len(laptop.volumes("box")) == 2
    assert len(laptop.machines("box")) == 1
    # Another machine can start from it, on a volume that is large enough.
    begun = ("up", "two", "--yes", *IMAGE, "--snapshot", snapshot)
    assert "give the volume more" in laptop.fails(*begun, "--volume", "5")
    laptop.well(*begun, "--volume", "10")
    assert laptop.ssh("two", "cat /mnt/file") == "old\n"


def test_a_move_keeps_files_and_host_key(laptop: Laptop) -> None:
    laptop.up("box")
    laptop.ssh("box", "echo mine >/mnt/file; sync")
    known = (laptop.folder / "config" / "machines" / "box" / "known_hosts").read_text()
    [before], [old] = laptop.machines("box"), laptop.volumes("box")
    assert "there is no region mars" in laptop.fails("move", "box", "--region", "mars", "--yes")
    said = laptop.well("move", "box", "--region", "fra", "--yes")
    assert "box is in fra" in said
    [after] = laptop.machines("box")
    assert (after.region, after.id == before.id) == ("fra", False)
    [volume] = laptop.volumes("box")
    assert (volume.region, volume.id == old.id) == ("fra", False)
    assert laptop.ssh("box", "cat /mnt/file") == "mine\n"
    assert (laptop.folder / "config" / "machines" / "box" / "known_hosts").read_text() == known
    laptop.well("up", "box", "--yes")
    assert [each.region for each in laptop.machines("box")] == ["fra"]


def test_a_move_that_is_broken_off_goes_on_and_loses_nothing(laptop: Laptop) -> None:
    laptop.up("box")
    laptop.ssh("box", "echo mine >/mnt/file; sync")
    for attempt in range(30):
        done = len(laptop.calls)
        # Killed a little later each time, until it succeeds.
        (laptop.folder / "plan").write_text(f"after {done + 2 + attempt * 2}")
        result = laptop.swarm("move", "box", "--region", "fra", "--yes")
        (laptop.folder / "plan").unlink()
        assert len(laptop.volumes("box")) in (1, 2)
        if result.returncode == 0:
            break
        assert result.returncode == -9, result.stderr
    else:
        pytest.fail("it never came through")
    assert [each.region for each in laptop.machines("box")] == ["fra"]
    assert [each.region for each in laptop.volumes("box")] == ["fra"]
    assert laptop.ssh("box", "cat /mnt/file") == "mine\n"


@pytest.mark.skipif(bool(REAL), reason="fly proxy needs WireGuard, which the stand-in has not")
def test_a_private_machine_has_no_address_and_ssh_gets_in(laptop: Laptop) -> None:
    laptop.up("box", "--private")
    assert laptop.app("box").addresses == []
    assert not [call for call in laptop.calls if call.startswith("ips allocate")]
    assert laptop.ssh("box", "echo in") == "in\n"
    # ssh ends its ProxyCommand with a signal; flyctl's proxy ends with it.
    ports = [call.split()[1] for call in laptop.calls if call.startswith("proxy ")]
    assert ports
    until(lambda: not any(running(port) for port in ports), "the end of every proxy")


def test_tmux_sessions_are_begun_once_and_found_again(shared_laptop: Laptop, tmux: None) -> None:
    laptop = shared_laptop
    laptop.well("wake", "box")
    words = [SWARM, "ssh", "box", "--tmux", "work"]

    def attach() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            ["script", "-qec", " ".join(words), "/dev/null"],
            env=laptop.environ | {"TERM": "xterm"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )

    def sessions() -> str:
        listed = "tmux list-sessions -F '#{session_name} #{session_attached}' 2>&1 || true"
        return laptop.ssh("box", listed).strip()

    # The first starts and leaves the session; the second finds the same one.
    first = attach()
    try:
        until(lambda: sessions() == "work 1", "a session named work")
        laptop.ssh("box", "tmux set-environment -t work MARK here")
    finally:
        first.kill()
        first.wait()
    until(lambda: sessions() == "work 0", "its client's end")
    second = attach()
    try:
        until(lambda: sessions() == "work 1", "the session with a client again")
        assert laptop.ssh("box", "tmux show-environment -t work MARK") == "MARK=here\n"
    finally:
        laptop.ssh("box", "tmux kill-server")
        second.wait(30)


def test_attach_goes_to_the_coding_agent_that_waits_longest(
    shared_laptop: Laptop, tmux: None
) -> None:
    """Or to a named one, in windows of one session and in another session."""
    laptop = shared_laptop
    laptop.well("wake", "box")
    asks = "swarm-agent agent waiting --name {0}; cat"

    def client(*words: str) -> "subprocess.Popen[bytes]":
        command = " ".join([SWARM, "attach", "box", *words])
        return subprocess.Popen(
            ["script", "-qec", command, "/dev/null"],
            env=laptop.environ | {"TERM": "xterm"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )

    def shown() -> str:
        """The window that a client looks at."""
        listed = "tmux list-clients -F '#{session_name} #{window_name}' 2>&1 || true"
        return laptop.ssh("box", listed).strip()

    def waits() -> list[str]:
        seen = json.loads(laptop.well("agents", "box", "--json"))["box"]["agents"]
        return [each["name"] for each in seen]

    clients = []
    try:
        for place, name in (
            ("new-session -d -s one -n shell 'cat' \\; new-window -n eldest", "eldest"),
            ("new-window -t one: -n middle", "middle"),
            ("new-session -d -s two -n youngest", "youngest"),
        ):
            laptop.ssh("box", f"tmux {place} {shlex.quote(asks.format(name))}")
            until(lambda: waits()[-1:] == [name], f"{name} after those before it")  # noqa: B023
        laptop.ssh("box", "tmux select-window -t one:shell")
        for words, window in (((), "one eldest"), (("youngest",), "two youngest")):
            clients.append(client(*words))
            until(lambda: window in shown().splitlines(), f"{window}: {shown()}")  # noqa: B023
        assert "there is no coding agent nobody" in laptop.fails("attach", "box", "nobody")
    finally:
        laptop.ssh("box", "tmux kill-server")
        for each in clients:
            each.wait(30)


def test_the_status_page_is_shown_through_a_tunnel(shared_laptop: Laptop) -> None:
    laptop = shared_laptop
    laptop.well("wake", "box")
    # Machines of the stand-in have their own ports: `open` uses the setting.
    kept = laptop.folder / "config" / "machines" / "box" / "state.json"
    before = kept.read_text()
    port = laptop.port("box", 9091)
    kept.write_text(json.dumps(json.loads(before) | {"env": {"SWARM_HTTP_LISTEN": f"*:{port}"}}))
    page = subprocess.Popen(
        [SWARM, "open", "box", "--print"], env=laptop.environ, stdout=subprocess.PIPE, text=True
    )
    try:
        assert page.stdout is not None
        address = page.stdout.readline().split()[0]
        with urllib.request.urlopen(address) as answer:
            assert b"<title>" in answer.read()
    finally:
        page.send_signal(signal.SIGINT)
        page.wait(10)
        kept.write_text(before)


def test_a_team_in_one_file(laptop: Laptop, tmp_path: Path) -> None:
    ann, bob = make_key(tmp_path / "a"), make_key(tmp_path / "b")
    file = laptop.folder / "swarm.toml"
    whole = f"""
[defaults]
image = "registry.example/swarm:1"
region = "ams"
[machines.one]
[machines.two]
memory = 4
people = ["bob"]
settings = {{ SWARM_IDLE_TIMEOUT = "47m" }}
[people]
ann = "{ann.public}"
bob = ["{bob.public}"]
"""
    file.write_text(whole + "[machine.three]\n")
    assert "unknown field `machine`" in laptop.fails("apply", "--dry-run")
    file.write_text(whole.replace('"bob"', '"eve"'))
    assert "eve is not in [people]" in laptop.fails("apply")
    file.write_text(whole.replace("memory = 4", "memory = 400"))
    assert "[machines.two]: shared-cpu-2x takes" in laptop.fails("apply")
    file.write_text(whole)
    assert "one: is made" in laptop.well("apply", "--dry-run")
    assert not laptop.standing().records.apps
    assert "2 done, 0 failed" in laptop.well("apply", "--yes")
    config = str(laptop.ssh_folder / "config")
    for name, key, status in (("one", ann, 0), ("one", bob, 0), ("two", bob, 0), ("two", ann, 255)):
        words = ["ssh", "-F", config, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
        words += ["-o", "IdentityFile=none", "-i", str(key.path), name, "true"]
        done = subprocess.run(words, capture_output=True, check=False)
        assert done.returncode == status, (name, done.stderr)
    said = laptop.well("apply", "--yes")
    assert said.count("matches the file") == 2
    file.write_text(whole.replace('\nbob = ["', '\neve = ["').replace('["bob"]', '["eve"]'))
    said = laptop.well("apply", "--dry-run")
    assert "one: key of eve; key of bob removed" in said


@pytest.mark.long
def test_all_machines_at_once_with_one_that_fails(laptop: Laptop) -> None:
    for name in ("one", "two"):
        laptop.up(name)
    laptop.fly("apps", "destroy", "two", "--yes")
    result = laptop.swarm("restart", "--all")
    assert result.returncode == 1
    assert "one: one is awake" in result.stdout
    assert "two: FAILED:" in result.stdout
    assert "1 done, 1 failed" in result.stdout
    rows = json.loads(laptop.well("list", "--json"))
    assert [each["state"] for each in rows] == ["awake", "?"]
    bob = make_key(laptop.folder / "bob")
    result = laptop.swarm("keys", "add", "--all", f"{bob.path}.pub", "--person", "bob")
    assert "one: bob may log in" in result.stdout
    result = laptop.swarm("up", "--all", "--image", "registry.example/swarm:2")
    assert "one: is up to date" in result.stdout
    assert laptop.app("one").releases[-1].image_ref == "registry.example/swarm:2"
    result = laptop.swarm("backup", "--all")
    assert result.returncode == 1
    assert "1 done, 1 failed" in result.stdout, result.stdout + result.stderr
    assert "every file compared" in result.stdout
