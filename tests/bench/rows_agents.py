"""The cost of hooks of coding agents."""

import json
import subprocess

from tests.bench.contenders import Contender
from tests.bench.rows_login import proportional
from tests.bench.table import AGENT, Row, Samples
from tests.support import until

PAYLOAD = {
    "session_id": "bench-1",
    "hook_event_name": "PreToolUse",
    "cwd": "/workspace/api",
    "tool_name": "Bash",
    "tool_use_id": "toolu_1",
    "tool_input": {"command": "x" * 500},
    "tool_response": {"stdout": "y" * 20_000},
}

_LOOP = """
set -e
cat >payload.json
for n in $(seq {calls}); do
    begin=$(date +%s%N)
    sh -c '{command}' <payload.json
    end=$(date +%s%N)
    echo $((end - begin))
done
"""


def hook(contender: Contender, calls: int) -> list[Row]:
    """Hooks one after the other, as a coding tool runs them, beside a hook that does nothing."""
    program = contender.command[0]
    with contender.running() as ready:
        until(lambda: _answers(ready.agent_command("agents")), "the agent's answers")
        before = proportional(ready.pid) / 1024
        nothing = _timed(contender, "true", calls)
        hooks = _timed(contender, f"{program} hook claude", calls)
        after = proportional(ready.pid) / 1024
        said = subprocess.run(ready.agent_command("agents", "--json"), capture_output=True).stdout
        counted = sum(each["tool_calls"] for each in json.loads(said))
        assert counted == calls, f"{counted} of {calls} hooks have arrived"
    costs = tuple(each - sum(nothing) / len(nothing) for each in hooks)
    return [
        Row(
            f"a tool call's hook, {calls} in a row",
            "ms",
            (Samples(AGENT, costs), Samples("`true` as a hook", tuple(nothing))),
            limits=(("≤ 60 ms", 60.0, False),),
        ),
        Row(
            f"memory after {calls} hooks",
            "MB",
            (Samples(AGENT, (after,)), Samples("before", (before,))),
            limits=(("≤ 50 MB", 50.0, False),),
        ),
    ]


def _timed(contender: Contender, command: str, calls: int) -> list[float]:
    script = _LOOP.format(calls=calls, command=command)
    done = subprocess.run(
        contender.ssh(script), input=json.dumps(PAYLOAD), capture_output=True, text=True, check=True
    )
    return [int(line) / 1e6 for line in done.stdout.split()]


def _answers(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
