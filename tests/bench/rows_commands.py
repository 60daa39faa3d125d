"""How long people and hooks of coding agents wait for an agent's command."""

import subprocess
import time
from collections.abc import Sequence

from tests.bench.contenders import Contender
from tests.bench.table import AGENT, Row, Samples
from tests.support import until

COMMANDS = (("awake", "--list"), ("status",), ("why",), ("services",), ("keys",))
LIMIT = 60.0


def commands(contender: Contender, runs: int) -> list[Row]:
    """Each command in a running machine, compared with `--version`, which asks no agent."""
    with contender.running() as ready:

        def took(words: Sequence[str]) -> float:
            begun = time.perf_counter()
            subprocess.run(ready.agent_command(*words), stdout=subprocess.DEVNULL, check=True)
            return (time.perf_counter() - begun) * 1000

        until(
            lambda: (
                subprocess.run(
                    ready.agent_command("status"), capture_output=True, check=False
                ).returncode
                == 0
            ),
            "the control socket",
        )
        found = []
        for words in COMMANDS:
            pairs = [(took(words), took(["--version"])) for _ in range(runs)]
            samples = (
                Samples(AGENT, tuple(pair[0] for pair in pairs)),
                Samples("--version", tuple(pair[1] for pair in pairs)),
            )
            name = f"swarm-agent {' '.join(words)}"
            found.append(Row(name, "ms", samples, limits=((f"≤ {LIMIT:g} ms", LIMIT, False),)))
    return found
