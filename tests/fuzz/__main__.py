"""`make fuzz [SECONDS=60] [TARGETS="header keys"]`: coverage-guided fuzzing of strangers' input.

Each target may only raise the errors of its contract. Input that breaks one is kept in
.fuzz/TARGET/ and tried first the next time.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".fuzz"


def _header(data: bytes) -> None:
    from agent.access.proxy_header import HeaderError, parse, wanted

    taken = b""
    try:
        while missing := wanted(taken):
            if len(taken) + missing > len(data):
                return
            taken = data[: len(taken) + missing]
        parse(taken)
    except HeaderError:
        return


def _sshd(data: bytes) -> None:
    from agent.access.authlog import parse
    from agent.access.connection import as_line

    line = as_line(data)
    assert line.isprintable()
    parse(line)


def _keys(data: bytes) -> None:
    from agent.access.keys import find

    text = data.decode("utf-8", "replace").replace("\0", "")
    for entry in find({"SSH_AUTHORIZED_KEYS": text}, "/no/such/folder").usable:
        assert "\n" not in entry.as_line()


def _settings(data: bytes) -> None:
    from agent.settings import SettingsError, load
    from agent.settings.load import specs, variable

    names = list(specs())
    if not data:
        return
    name = variable(names[data[0] % len(names)])
    try:
        load({name: data[1:].decode("utf-8", "replace")}, privileged=True)
    except SettingsError:
        return


def _services(data: bytes) -> None:
    import tomllib

    from agent.services.definition import DefinitionError, parse

    try:
        table = tomllib.loads(data.decode("utf-8", "replace"))
    except (tomllib.TOMLDecodeError, RecursionError):
        return
    for name, value in table.items():
        try:
            parse(name, value, "root")
        except DefinitionError:
            continue


def _hooks(data: bytes) -> None:
    from agent.crew.hooks import ReportError, read
    from agent.crew.states import hear
    from tests.unit.test_crew_states import WALL, member

    try:
        teller, report = read(data)
    except ReportError:
        return
    assert teller.folder.isprintable()
    if report is not None:
        hear(member(teller.tool), report, 1.0, WALL)


def _payloads(data: bytes) -> None:
    import json

    from agent.crew.tell import LONGEST, SENT_BY_TOOL, pick

    try:
        payload = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(payload, dict):
        for value in pick(payload, SENT_BY_TOOL).values():
            assert not isinstance(value, str) or len(value) <= LONGEST


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": _header,
    "sshd": _sshd,
    "keys": _keys,
    "settings": _settings,
    "services": _services,
    "hooks": _hooks,
    "payloads": _payloads,
}


def main() -> int:
    """Run every target for its time, in its own process; returns 1 if one broke."""
    if len(sys.argv) > 1 and sys.argv[1] == "--one":
        return _one(sys.argv[2], int(sys.argv[3]))
    wanted = sys.argv[1:] or list(TARGETS)
    seconds = os.environ.get("SECONDS", "60")
    broken = []
    for name in wanted:
        began = time.monotonic()
        command = [sys.executable, "-m", "tests.fuzz", "--one", name, seconds]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stderr.strip().splitlines() or [""]
        print(f"{name}: {said[-1]} ({time.monotonic() - began:.0f} s)")
        if done.returncode != 0:
            print("\n".join(said[-40:]))
            broken.append(name)
    return int(bool(broken))


def _one(name: str, seconds: int) -> int:
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["agent"]):
        TARGETS[name](b"")
    corpus = FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    words = [f"-max_total_time={seconds}", f"-artifact_prefix={corpus}/", "-max_len=2048"]
    atheris.Setup([sys.argv[0], *words, str(corpus)], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
