"""`make bench [ROWS="cold login --quick"]`: measure, and write the table to .bench/."""

import argparse
import fcntl
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench import (
    contenders,
    rows_agents,
    rows_boot,
    rows_checkpoints,
    rows_commands,
    rows_crew,
    rows_fleet,
    rows_gate,
    rows_growth,
    rows_idle,
    rows_login,
    rows_observe,
    rows_services,
)
from tests.bench.contenders import SSHD, STACK, SUPERVISORD, WORK, Contender, Unavailable
from tests.bench.table import Row, as_json, markdown
from tests.support import Key, make_key

Measure = Callable[[list[Contender], bool], list[Row]]

ROWS: dict[str, Measure] = {
    "warm": lambda peers, quick: [rows_boot.warm(_but(peers, STACK), 3 if quick else 11)],
    "cold": lambda peers, quick: rows_boot.cold(_but(peers, STACK), 1 if quick else 5),
    "login": lambda peers, quick: [rows_login.login(peers[:3], 5 if quick else 40)],
    "bulk": lambda peers, quick: rows_login.bulk(peers[:3], 1 if quick else 7),
    "memory": lambda peers, quick: [rows_login.memory(peers, 1 if quick else 3)],
    "refused": lambda peers, quick: [rows_gate.refused(peers[0], 1 if quick else 5)],
    "ban": lambda peers, quick: rows_gate.ban(peers[0], 2 if quick else 10),
    "commands": lambda peers, quick: rows_commands.commands(peers[0], 3 if quick else 25),
    "wake": lambda peers, quick: rows_idle.wake(peers[0], 2 if quick else 15),
    "idle": lambda peers, quick: rows_idle.idle(peers[:3], 30.0 if quick else 600.0),
    "scraped": lambda peers, quick: [rows_observe.scraped(peers[0], 1 if quick else 5)],
    "services": lambda peers, quick: rows_services.services(peers[0], 2 if quick else 9),
    "service-flood": lambda peers, quick: [
        rows_services.service_flood(peers[0], 1 if quick else 4)
    ],
    "fleet": lambda peers, quick: rows_fleet.fleet(1 if quick else 5),
    "orphans": lambda peers, quick: rows_growth.orphans(
        _but(peers, STACK, SUPERVISORD, SSHD), 1 if quick else 5
    ),
    "stop": lambda peers, quick: rows_growth.stop(peers[0], 1 if quick else 3),
    "reload": lambda peers, quick: rows_growth.reload(peers[0], 1 if quick else 5),
    "many-sessions": lambda peers, quick: rows_growth.sessions(
        peers[0], rows_growth.SESSIONS[: 2 if quick else None], 3 if quick else 15
    ),
    "many-bans": lambda peers, quick: rows_growth.banned(
        peers[0], rows_growth.BANS[: 2 if quick else None], 1 if quick else 3
    ),
    "many-services": lambda peers, quick: rows_growth.services(
        peers[0], rows_growth.SERVICES[: 2 if quick else None], 1 if quick else 3
    ),
    "hook": lambda peers, quick: rows_agents.hook(peers[0], 20 if quick else 1000),
    "agent-states": lambda peers, quick: rows_crew.states(peers[0].key, 1 if quick else 3),
    "login-checkpoints": lambda peers, quick: [
        rows_checkpoints.login_beside(peers[0], 6 if quick else 40)
    ],
    "checkpoints": lambda _, quick: rows_checkpoints.checkpoints(
        2 if quick else 5, 3 if quick else 100
    ),
    "flood": lambda peers, quick: rows_gate.flood(peers[:2], 5.0 if quick else 20.0),
}


def main() -> int:
    """Measure the requested rows; returns 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], default=[])
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    words = parser.parse_args()
    _leave_the_shared_interpreter()
    # A signal unwinds the blocks that stop the machines.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if os.geteuid() != 0:
        print("the machines of this benchmark need root: namespaces and an account of their own")
        return 1
    with WORK.joinpath("lock").open("w") as lock, tempfile.TemporaryDirectory() as folder:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another benchmark works in {WORK}: wait for it, or stop it")
            return 1
        contenders.install_agent()
        peers = _contenders(make_key(Path(folder) / "key"))
        results: list[Row] = []
        for name in words.rows or ROWS:
            print(f"measuring {name}", file=sys.stderr, flush=True)
            results += ROWS[name](peers, words.quick)
            # Write at once: a failing row must not lose the others.
            WORK.joinpath("results.md").write_text(markdown(results))
            WORK.joinpath("results.json").write_text(as_json(results))
    print(markdown(results))
    return int(any("MISSED" in verdict for row in results for verdict in row.verdicts()))


def _contenders(key: Key) -> list[Contender]:
    found = [contenders.agent(key), contenders.bare_sshd(key)]
    others = (
        contenders.supervised_sshd,
        contenders.tini_sshd,
        contenders.s6_sshd,
        contenders.stack,
    )
    for make in others:
        try:
            found.append(make(key))
        except Unavailable as error:
            print(f"without {make.__name__}: {error}", file=sys.stderr)
    return found


def _but(peers: list[Contender], *names: str) -> list[Contender]:
    return [peer for peer in peers if peer.name not in names]


_WITHOUT_OPENSSL = """
import runpy, sys
sys.modules.update(ssl=None, _ssl=None, _hashlib=None)
runpy.run_module("tests.bench", run_name="__main__")
"""


def _leave_the_shared_interpreter() -> None:
    """Run on in a copy of the interpreter, without OpenSSL: pages we have mapped are never cold."""
    if os.environ.get("BENCH_COPY"):
        return
    WORK.mkdir(exist_ok=True)
    copy = WORK / "python"
    shutil.copy2(Path(sys.executable).resolve(), copy)
    library = next(Path(sys.prefix).glob("lib/python3*/site-packages"))
    environ = os.environ | {"BENCH_COPY": "1", "PYTHONPATH": f"{library}:{os.getcwd()}"}
    os.execve(copy, [str(copy), "-c", _WITHOUT_OPENSSL, *sys.argv[1:]], environ)


if __name__ == "__main__":
    raise SystemExit(main())
