"""Twenty trivial services: time until they run, and memory; logins during a flood."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from agent.init.proctree import descendants
from tests.bench.contenders import Contender, Prepared, Unavailable, needed, work_folder
from tests.bench.rows_login import as_samples, proportional, timed_login
from tests.bench.table import AGENT, Row, Samples, Target
from tests.support import until

COUNT = 20
SUPERVISORD, S6, QUIET = "supervisord", "s6", "quiet"
SETTLE = 10.0

FLOOD_RATE = 100
FLOOD = f"""
import os, time
block = b"x" * 1023 + b"\\n"
block *= 1024
began, sent = time.monotonic(), 0
while True:
    os.write(1, block)
    sent += 1
    time.sleep(max(0, began + sent / {FLOOD_RATE} - time.monotonic()))
"""


def services(agent: Contender, runs: int) -> list[Row]:
    """exec → twenty services run, and the memory of their supervisor."""
    marks = work_folder("marks")
    peers = [agent_with(agent, marks, COUNT)]
    for make in (_supervisord, _s6):
        try:
            peers.append(make(agent, marks))
        except Unavailable as error:
            print(f"without {make.__name__}: {error}", file=sys.stderr)
    started: dict[str, list[float]] = {peer.name: [] for peer in peers}
    held: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for number in range(runs + 1):
        for peer in peers:
            with peer.prepared() as ready:
                seconds = until_marked(ready, marks, COUNT)
                if number:
                    started[peer.name].append(seconds * 1000)
                else:  # the first round warms
                    time.sleep(SETTLE)
                    held[peer.name].append(_supervision(ready.pid))
    return [
        Row(
            f"exec → {COUNT} services run",
            "ms",
            as_samples(started),
            (Target(SUPERVISORD, 0.2), Target(S6, 3)),
            note="the limit: Python and SSH come first (exec → banner), then 50 ms that belong to "
            "a waiting client, then the services",
        ),
        Row(
            f"memory (PSS) that supervises {COUNT} services",
            "MB",
            as_samples(held),
            note="swarm-agent: with SSH, idle detection, metrics and all else",
        ),
    ]


def service_flood(agent: Contender, runs: int) -> Row:
    """A login while a service writes 100 MB a second, compared with a quiet one."""
    folder = work_folder("flood")
    script = folder / "flood.py"
    script.write_text(FLOOD)
    text = f'[service.flood]\ncommand = "/usr/bin/python3 {script}"\nautostart = false\n'
    ours = _with_services(agent, folder, text)
    quiet: list[float] = []
    loaded: list[float] = []
    with ours.running() as machine:
        timed_login(ours)
        until(lambda: _ask(machine, "services"), "the control socket")
        for _ in range(runs):
            quiet += [timed_login(ours) for _ in range(10)]
            assert _ask(machine, "start", "flood")
            loaded += [timed_login(ours) for _ in range(10)]
            assert _ask(machine, "stop", "flood")
    samples = (Samples(AGENT, tuple(loaded)), Samples(QUIET, tuple(quiet)))
    return Row("login while a service says 100 MB/s", "ms", samples, (Target(QUIET, 1.1),))


def agent_with(agent: Contender, marks: Path, count: int) -> Contender:
    """The agent with so many services, each of which leaves a mark and sleeps."""
    text = "".join(
        f"[service.{name}]\ncommand = ['sh', '-c', '{_program(marks, name)}']\nuser = 'root'\n"
        for name in _names(count)
    )
    return _with_services(agent, work_folder("services"), text)


def _supervisord(agent: Contender, marks: Path) -> Contender:
    needed("supervisord", "supervisor")
    config = work_folder(SUPERVISORD + "-20") / "supervisord.conf"
    programs = "".join(
        f"[program:{name}]\ncommand=sh -c '{_program(marks, name)}'\n" for name in _names()
    )
    config.write_text(
        "[supervisord]\nnodaemon=true\nuser=root\nlogfile=/dev/null\nlogfile_maxbytes=0\n"
        f"pidfile=/run/supervisord.pid\n{programs}"
    )
    command = ("/usr/bin/supervisord", "-c", str(config))
    return Contender(SUPERVISORD, command, (), 0, agent.key, config.parent)


def _s6(agent: Contender, marks: Path) -> Contender:
    program = needed("s6-svscan", "s6")
    folder = work_folder(S6)
    shutil.rmtree(folder / "scan", ignore_errors=True)
    for name in _names():
        run = folder / "scan" / name / "run"
        run.parent.mkdir(parents=True)
        run.write_text(f"#!/bin/sh\n{_program(marks, name)}\n")
        run.chmod(0o755)
    return Contender(S6, (program, str(folder / "scan")), (), 0, agent.key, folder)


def _with_services(agent: Contender, folder: Path, text: str) -> Contender:
    files = folder / "services.d"
    files.mkdir(exist_ok=True)
    files.joinpath("bench.toml").write_text(text)
    environ = (*agent.environ, ("SWARM_SERVICES_DIR", str(files)))
    return replace(agent, environ=environ, folder=folder)


def _names(count: int = COUNT) -> list[str]:
    return [f"s{number}" for number in range(count)]


def _program(marks: Path, name: str) -> str:
    return f'echo >"{marks}/{name}"; exec sleep 1000'


def until_marked(ready: Prepared, marks: Path, count: int) -> float:
    """Seconds from exec until every service has left its mark."""
    for old in marks.iterdir():
        old.unlink()
    began = time.monotonic()
    ready.go()
    while len(os.listdir(marks)) < count:
        assert ready.machine.running()
        time.sleep(0.001)
    return time.monotonic() - began


def _supervision(pid: int) -> float:
    """Memory of the supervisor and its helpers in MB, without the services themselves."""
    ours = [pid, *(each.pid for each in descendants(pid) if not _is_sleep(each.pid))]
    return sum(map(proportional, ours)) / 1024


def _is_sleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"


def _ask(machine: Prepared, *words: str) -> bool:
    command = machine.agent_command(*words)
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
