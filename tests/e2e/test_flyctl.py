"""What `swarm` relies on in flyctl, against the stand-in: the small flyctl and the real one pass.

Each test covers something that one of them once did differently. SWARM_FLYCTL runs the real one.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.swarm import secrets
from tests.laptop import Laptop
from tests.support import until

# One worker: the tests share a machine.
pytestmark = [pytest.mark.root, pytest.mark.timeout(600), pytest.mark.xdist_group("flyctl")]

CONFIG = """\
app = "box"
primary_region = "ams"
{build}
[env]
SWARM_LISTEN = "*:2222"
[[services]]
protocol = "tcp"
internal_port = 2222
[[services.ports]]
port = 10022
[[mounts]]
source = "workspace"
destination = "/workspace"
[[vm]]
size = "shared-cpu-1x"
memory = "1gb"
"""
_QUICK = ("--ha=false", "--yes", "--detach", "--smoke-checks=false", "--dns-checks=false")


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    made = Laptop(tmp_path_factory.mktemp("flyctl") / "laptop")
    assert made.fly("apps", "create", "box", "--yes").returncode == 0
    yield made
    made.down()


@pytest.fixture(scope="module")
def machine(laptop: Laptop) -> str:
    words = ["volumes", "create", "workspace", "--app", "box", "--region", "ams", "--yes"]
    assert laptop.fly(*words).returncode == 0
    path = write(laptop, "")
    done = laptop.fly("deploy", "--app", "box", "--config", path, "--image", "i", *_QUICK)
    assert done.returncode == 0, done.stderr
    return laptop.machines("box")[0].id


def write(laptop: Laptop, build: str) -> str:
    folder = laptop.folder / "machine"
    folder.mkdir(exist_ok=True)
    path = folder / "fly.toml"
    path.write_text(CONFIG.format(build=build))
    return str(path)


def test_versions_and_accounts_are_json(laptop: Laptop) -> None:
    assert isinstance(json.loads(laptop.fly("version", "--json").stdout)["Version"], str)
    whoami = laptop.fly("auth", "whoami", "--json")
    assert json.loads(whoami.stdout) == {"email": "you@this-computer"}


def test_a_lost_login_is_status_1_and_words_on_stderr(laptop: Laptop) -> None:
    token = laptop.environ.pop("FLY_API_TOKEN")
    try:
        done = laptop.fly("apps", "list", "--json")
    finally:
        laptop.environ["FLY_API_TOKEN"] = token
    assert (done.returncode, done.stdout) == (1, "")
    assert "no access token available" in done.stderr


def test_empty_lists_are_lists_and_casing_differs(laptop: Laptop) -> None:
    assert laptop.fly("apps", "create", "empty", "--yes").returncode == 0
    for words in (("machine", "list"), ("volumes", "list"), ("ips", "list"), ("secrets", "list")):
        assert json.loads(laptop.fly(*words, "--app", "empty", "--json").stdout) == []
    apps = json.loads(laptop.fly("apps", "list", "--json").stdout)
    assert "empty" in [each["Name"] for each in apps]
    assert laptop.fly("ips", "allocate-v4", "--app", "empty", "--yes").returncode == 0
    [address] = json.loads(laptop.fly("ips", "list", "--app", "empty", "--json").stdout)
    assert address["Type"] == "v4"
    assert address["Address"].startswith("127.")
    regions = json.loads(laptop.fly("platform", "regions", "--json").stdout)
    assert "ams" in [each["code"] for each in regions]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("volumes", "create", "v", "--region", "ams"), "yes flag must be specified"),
        (("volumes", "create", "v", "--region", "mars", "--yes"), "region mars not found"),
        (("volumes", "create", "v", "--yes"), "region code must be specified"),
        (("ips", "allocate-v4"), "yes flag must be specified"),
        (("machine", "start"), "a machine ID must be specified when not running interactively"),
        (("machine", "exec", "id"), "when not running interactively"),
        (("machine", "start", "d8nothing"), "machine d8nothing was not found in app 'box'"),
        (("machine", "list", "--colour", "red"), "unknown flag: --colour"),
    ],
)
def test_what_would_be_asked_fails_where_nobody_answers(
    laptop: Laptop, words: tuple[str, ...], says: str
) -> None:
    done = laptop.fly(*words, "--app", "box")
    assert done.returncode == 1
    assert says in done.stderr
    assert says not in done.stdout


@pytest.mark.parametrize(
    ("statuses", "says"),
    [
        ([503, 502], ""),  # asked again
        ([429], "non-2xx status: 429"),
        ([500], "non-2xx status: 500"),
        ([200], "failed decoding response"),
        ([0, 0, 0], "EOF"),
    ],
)
def test_an_api_in_trouble(laptop: Laptop, statuses: list[int], says: str) -> None:
    laptop.change(fail=statuses)
    done = laptop.fly("machine", "list", "--app", "box", "--json")
    laptop.change(fail=[])
    assert done.returncode == bool(says), done.stderr
    assert says in done.stderr


def test_names_and_organisations_that_cannot_be_had(laptop: Laptop) -> None:
    assert "already been taken" in laptop.fly("apps", "create", "box").stderr
    assert (
        "organization nope not found" in laptop.fly("apps", "create", "x1", "--org", "nope").stderr
    )
    laptop.change(
        organizations=[
            {"slug": "a", "name": "A", "type": "SHARED"},
            {"slug": "personal", "name": "B"},
        ]
    )
    try:
        assert "org slug must be specified" in laptop.fly("apps", "create", "x2").stderr
    finally:
        laptop.change(organizations=[{"slug": "personal", "name": "You"}])


def test_the_dockerfile_of_the_configuration_comes_first_and_is_beside_it(laptop: Laptop) -> None:
    """It broke every deploy: the flag only counts if the configuration names none."""
    root = laptop.folder / "checkout"
    (root / "container").mkdir(parents=True)
    dockerfile = root / "container" / "Dockerfile"
    dockerfile.write_text("FROM scratch\nCMD x\n")
    flag = ["--dockerfile", str(dockerfile)]
    path = write(laptop, '[build]\ndockerfile = "container/Dockerfile"')
    done = laptop.fly("deploy", str(root), "--app", "box", "--config", path, *flag, *_QUICK)
    assert done.returncode == 1
    beside = Path(path).parent / "container" / "Dockerfile"
    assert f"dockerfile '{beside}' not found" in done.stderr


def test_a_build_asks_for_a_builder(laptop: Laptop) -> None:
    from deploy.local.uiex import NO_BUILDER

    root = laptop.folder / "other"
    root.mkdir()
    (root / "Dockerfile").write_text("FROM scratch\nCMD x\n")
    path = write(laptop, "[build]")
    flag = ["--dockerfile", str(root / "Dockerfile"), "--remote-only"]
    done = laptop.fly("deploy", str(root), "--app", "box", "--config", path, *flag, *_QUICK)
    assert done.returncode == 1
    assert NO_BUILDER in done.stdout + done.stderr
    assert laptop.standing().builders_asked


def test_an_image_that_is_not_there(laptop: Laptop) -> None:
    laptop.change(images=["known"])
    try:
        path = write(laptop, "")
        done = laptop.fly("deploy", "--app", "box", "--config", path, "--image", "i", *_QUICK)
    finally:
        laptop.change(images=[])
    assert done.returncode == 1
    assert "failed to get manifest i" in done.stderr


_VALUES = {
    "HASH": "p#1@h",
    "QUOTE": '"',
    "TRIPLE": '"""',
    "BOTH": 'a"#b',
    "LINES": "one\n two \nthree\n",
    "WINDOWS": "one\r\ntwo",
    "INNER": 'one\ntwo"""\nthree',
    "EMPTY": "",
    "SPACES": "  a  ",
    "LONG": "x" * 65000,
    "UNICODE": "ä€\u2028\U0001f600",
}


def test_secrets_arrive_byte_for_byte(laptop: Laptop) -> None:
    planned = secrets.plan(_VALUES)
    done = laptop.fly("secrets", "import", "--app", "box", "--stage", given=planned.imported)
    assert done.returncode == 0, done.stderr
    for name, value in planned.alone.items():
        words = ["secrets", "set", f"{name}=-", "--app", "box", "--stage"]
        assert laptop.fly(*words, given=value.encode()).returncode == 0
    there = laptop.app("box").secrets
    assert {name: there[name].value for name in _VALUES} == _VALUES
    listed = json.loads(laptop.fly("secrets", "list", "--app", "box", "--json").stdout)
    assert {each["name"] for each in listed} >= set(_VALUES)


def test_the_parser_of_an_import(laptop: Laptop) -> None:
    given = b'# no\n\nA = 1 # cut\nB=\'x\'\nC="y # z"\nD=a"#b\n' + b"E=" + b"e" * 70000 + b"\nF=f\n"
    laptop.fly("secrets", "import", "--app", "empty2", "--stage", given=given)
    assert laptop.fly("apps", "create", "empty2", "--yes").returncode == 0
    assert (
        laptop.fly("secrets", "import", "--app", "empty2", "--stage", given=given).returncode == 0
    )
    there = {name: each.value for name, each in laptop.app("empty2").secrets.items()}
    assert there == {"A": "1", "B": "x", "C": "y # z", "D": 'a"#b'}
    done = laptop.fly("secrets", "import", "--app", "empty2", "--stage", given=b'A="\n')
    assert done.returncode == 2  # it crashes
    done = laptop.fly("secrets", "import", "--app", "empty2", "--stage", given=b"rubbish\n")
    assert "must be provided as NAME=VALUE pairs" in done.stderr


def test_exec_keeps_status_and_both_streams_apart(laptop: Laptop, machine: str) -> None:
    def run(command: str, *words: str) -> "dict[str, object]":
        done = laptop.fly("machine", "exec", machine, command, "--app", "box", "--json", *words)
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found

    assert run("id -u") == {"stdout": "0\n"}
    both = "sh -c 'echo out; echo err >&2; exit 3'"
    assert run(both) == {"exit_code": 3, "stdout": "out\n", "stderr": "err\n"}
    assert run("true") == {}
    done = laptop.fly("machine", "exec", machine, "sleep 30", "--app", "box", "--timeout", "1")
    assert done.returncode == 1
    assert "deadline_exceeded" in done.stderr


def test_starts_do_not_wait_and_stops_wait_when_told(laptop: Laptop, machine: str) -> None:
    laptop.change(pace=1.0)
    try:
        words = ["machine", "suspend", machine, "--app", "box"]
        assert laptop.fly(*words).returncode == 0
        assert laptop.state("box") in ("started", "suspending")
        assert laptop.fly(*words[:-2], "--app", "box", "--wait-timeout", "30s").returncode in (0, 1)
        start = ["machine", "start", machine, "--app", "box"]
        while laptop.state("box") != "suspended":
            pass
        assert laptop.fly(*start).returncode == 0
        assert laptop.state("box") == "starting"
        while laptop.state("box") != "started":
            pass
        stop = ["machine", "stop", machine, "--app", "box", "--signal", "SIGTERM"]
        assert laptop.fly(*stop, "--wait-timeout", "60s").returncode == 0
        assert laptop.state("box") == "stopped"
    finally:
        laptop.change(pace=0.0)


def test_an_update_leaves_a_sleeping_machine_asleep_when_told(laptop: Laptop, machine: str) -> None:
    stop = ["machine", "stop", machine, "--app", "box", "--wait-timeout", "60s"]
    laptop.fly(*stop)
    words = ["machine", "update", machine, "--app", "box", "--yes", "--skip-start"]
    assert laptop.fly(*words, "--autostart=false").returncode == 0
    assert laptop.state("box") == "stopped"
    [found] = json.loads(laptop.fly("machine", "list", "--app", "box", "--json").stdout)
    assert [each["autostart"] for each in found["config"]["services"]] == [False]
    path = write(laptop, "")
    done = laptop.fly("deploy", "--app", "box", "--config", path, "--image", "i", *_QUICK)
    assert done.returncode == 0, done.stderr
    assert laptop.state("box") == "stopped"  # a deploy updates it without a start
    small = laptop.fly(*words, "--vm-size", "shared-cpu-4x", "--vm-memory", "256")
    assert small.returncode == 1
    assert "memory" in small.stderr


def test_a_host_that_does_not_answer_hides_the_configuration(laptop: Laptop, machine: str) -> None:
    laptop.change(hosts=[{"name": "host-ams", "region": "ams", "status": "unreachable"}])
    try:
        [found] = json.loads(laptop.fly("machine", "list", "--app", "box", "--json").stdout)
        path = write(laptop, "")
        done = laptop.fly("deploy", "--app", "box", "--config", path, "--image", "i", *_QUICK)
    finally:
        laptop.change(hosts=[{"name": f"host-{each}", "region": each} for each in ("ams", "fra")])
    assert found["host_status"] == "unreachable"
    assert "config" not in found
    assert found["incomplete_config"]["guest"]["cpus"] == 1
    assert done.returncode == 1
    assert "requires manual intervention" in done.stderr


def test_snapshots_are_asynchronous_and_extending_grows(laptop: Laptop, machine: str) -> None:
    [volume] = [each.id for each in laptop.volumes("box")]
    words = ["volumes", "snapshots", "create", volume, "--app", "box", "--json"]
    assert laptop.fly(*words).stdout == f"Scheduled to snapshot volume {volume}\n"

    def listed() -> "list[dict[str, object]]":
        done = laptop.fly("volumes", "snapshots", "list", volume, "--app", "box", "--json")
        found: list[dict[str, object]] = json.loads(done.stdout)
        return found

    until(lambda: listed()[-1]["status"] == "created", "the snapshot")
    assert str(listed()[-1]["id"]).startswith("vs_")
    assert listed()[-1]["retention_days"] == 5  # flyctl's default, whatever fly.toml says
    extend = ["volumes", "extend", volume, "--app", "box", "--size", "3", "--yes", "--json"]
    assert json.loads(laptop.fly(*extend).stdout)["size_gb"] == 3
    assert laptop.fly(*extend).returncode == 1  # volumes only grow
    snapshot = str(listed()[-1]["id"])
    smaller = ["volumes", "create", "w", "--app", "box", "--region", "ams", "--yes", "--size", "1"]
    assert laptop.fly(*smaller, "--snapshot-id", snapshot).returncode == 0  # its source has 1 GB
    assert laptop.fly(*smaller, "--snapshot-id", "vs_no").returncode == 1


def test_a_running_machine_is_not_destroyed_without_force(laptop: Laptop, machine: str) -> None:
    laptop.fly("machine", "start", machine, "--app", "box")
    while laptop.state("box") != "started":
        pass
    done = laptop.fly("machine", "destroy", machine, "--app", "box")
    assert done.returncode == 1
    assert "either stop first or use --force flag" in done.stderr
