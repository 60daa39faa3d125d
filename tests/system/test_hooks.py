"""The command of the hooks, and what a hostile account can do with it; without a tool or model."""

import json
import subprocess
import time

import pytest

from tests.conftest import BoxMaker
from tests.support import Box, ready, until

pytestmark = pytest.mark.root

PROMPT = json.dumps(
    {"hook_event_name": "UserPromptSubmit", "session_id": "s-1", "cwd": "/w", "prompt": "secret!"}
)
AS_A_TOOL = """
export PATH=$HOME/.local/bin:/usr/local/bin:/usr/bin:/bin
cat >tool.sh <<'END'
printf '%s' "$1" | swarm-agent hook claude
exec sleep 300
END
bash tool.sh {payload} >/dev/null 2>&1 </dev/null &
echo $!
"""


def begin(box: Box, payload: str = PROMPT) -> int:
    """Start a process of the account that reports a turn and keeps running; its id inside."""
    done = box.ssh(AS_A_TOOL.format(payload=f"'{payload}'"))
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def agents(box: Box) -> list[dict[str, object]]:
    done = box.agent("agents", "--json")
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "payload", ["", "rubbish", "[]", '{"hook_event_name": 7}', '{"a":' * 5000, "\\xff\\x00"]
)
def test_a_hook_never_fails_its_tool(box: Box, payload: str) -> None:
    script = f"printf '%b' '{payload}' | $HOME/.local/bin/swarm-agent hook claude; echo $?"
    assert box.ssh(script).stdout == "0\n"


def test_a_hook_without_an_agent_does_nothing_and_does_not_wait() -> None:
    from deploy.machine import AGENT

    began = time.monotonic()
    done = subprocess.run(
        [AGENT[0], "hook", "claude"],
        input=PROMPT,
        env={"SWARM_RUN_DIR": "/nowhere", "HOME": "/nowhere"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < 10


def test_a_hook_whose_stdin_never_ends_gives_up_after_a_second(box: Box) -> None:
    script = "mkfifo f; exec 9<>f; $HOME/.local/bin/swarm-agent hook claude <&9; echo $?"
    assert box.ssh(script).stdout == "0\n"


def test_a_report_holds_the_machine_until_its_process_is_gone(box: Box) -> None:
    ready(box)
    pid = begin(box)
    until(lambda: [each["state"] for each in agents(box)] == ["working"], "one that works")
    assert "claude in /w has worked for" in box.agent("awake", "--list").stdout
    assert "secret!" not in box.said() + box.agent("agents", "--json").stdout
    box.ssh(f"kill -9 {pid}")
    until(lambda: [each["state"] for each in agents(box)] == ["ended"], "its end")
    assert box.agent("awake", "--list").stdout == "nothing holds the machine awake\n"


def test_what_is_known_outlives_a_re_execution(box: Box) -> None:
    ready(box)
    pid = begin(box)
    until(lambda: agents(box), "one that works")
    before = agents(box)[0]
    assert box.agent("reload").returncode == 0
    box.event("agent.reexecuted")
    until(lambda: box.agent("agents", "--json").returncode == 0 and agents(box), "the same one")
    after = agents(box)[0]
    same = ("name", "state", "pid", "prompts", "folder")
    assert [after[each] for each in same] == [before[each] for each in same]
    assert abs(float(str(after["since"])) - float(str(before["since"]))) < 1
    box.ssh(f"kill -9 {pid}")
    until(lambda: [each["state"] for each in agents(box)] == ["ended"], "its end")


def test_what_coding_agents_did_is_kept_over_a_stop(make_box: BoxMaker) -> None:
    box = ready(make_box().boot())
    pid = begin(box)
    until(lambda: [each["state"] for each in agents(box)] == ["working"], "one that works")
    box.ssh(f"kill -9 {pid}")
    until(lambda: [each["state"] for each in agents(box)] == ["ended"], "its end")
    assert box.stop() == 0
    ready(box.boot())
    until(lambda: box.agent("agents", "--json").stdout == "[]\n", "nobody")
    done = box.agent("agents", "--since", "1h", "--json")
    ended, began = json.loads(done.stdout)
    assert (began["agent"], began["folder"], began["state"]) == ("claude-1", "/w", "working")
    assert (ended["state"], ended["previous"]) == ("ended", "working")
    assert ended["because"] == "its process is gone"
    assert 0 < ended["seconds"] <= ended["at"] - began["at"] + 1
    said = box.agent("agents", "--since", "1h").stdout
    assert said.splitlines()[0].split() == "when (UTC) agent state because before folder".split()
    assert "working for" in said
    assert "secret!" not in said + done.stdout
    assert box.ask(f"/v1/agents/history?since={time.time() + 60}") == []


FLOOD = """
import json, os, socket, sys, time
box = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
box.setblocking(False)
box.connect("/run/swarm/hooks.sock")
print("go", flush=True)
path, tried = sys.argv[1], 0
while not os.path.exists(path + ".enough"):
    tried += 1
    if tried % 10_000 == 0:
        with open(path, "w") as count:
            count.write(str(tried))
    rubbish = tried % 3 == 0
    event = {"tool": "claude", "event": "Stop", "session": f"s{tried}", "pid": os.getpid()}
    try:
        box.send(os.urandom(2000) if rubbish else json.dumps(event).encode())
    except BlockingIOError:
        pass
print(tried, flush=True)
"""


def test_a_flood_of_hooks_keeps_nobody_out(box: Box) -> None:
    """How much of it is read at a time: tests/unit/test_crew_hooks.py."""
    ready(box)
    flood = subprocess.Popen(
        box.ssh_command("cat >flood.py; python3 flood.py count"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert flood.stdin is not None
    assert flood.stdout is not None
    flood.stdin.write(FLOOD)
    flood.stdin.close()
    assert flood.stdout.readline() == "go\n"
    for _ in range(10):
        assert box.answers()
    assert box.agent("why").returncode == 0
    until(lambda: box.ssh("cat count").stdout, "10,000 of it")
    assert flood.poll() is None
    assert box.ssh("touch count.enough").returncode == 0
    tried = int(flood.stdout.readline())
    flood.wait(30)
    assert tried > 10_000
    assert len(agents(box)) <= 64 + 20
    box.event("agent.notice", part="coding agents")
    notices = [each for each in box.events("agent.notice") if each["part"] == "coding agents"]
    assert 1 <= len(notices) <= 2, "each kind of rubbish is reported once"
