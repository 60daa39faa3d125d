"""`swarm up`, killed before and after every call of flyctl: the next run completes it."""

from collections.abc import Iterator

import pytest

from tests.laptop import Laptop

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

CALLS = 16
"""Different calls of flyctl in one `swarm up` from nothing; the first test checks the number."""

CHANGING = (5, 7, 9, 11, 13)
"""The calls that change something. A kill after any other call equals one before the next call."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    made = Laptop(tmp_path_factory.mktemp("interrupted") / "laptop")
    yield made
    made.down()


def test_every_call_is_among_those_that_are_interrupted(place: Laptop) -> None:
    before = len(place.calls)
    place.up("whole")
    calls = place.calls[before:]
    assert len(calls) >= CALLS, calls
    waiting = calls[CALLS - 1 :]  # asked again if the machine is slow
    assert {*waiting} <= {*calls[: CALLS - 1]}, calls
    words = ("create", "allocate", "import", "deploy", "start", "update")
    changing = [
        n for n, call in enumerate(calls, 1) if {*call.split()[:2]} & {*words, "allocate-v4"}
    ]
    assert tuple(changing) == CHANGING
    place.fly("apps", "destroy", "whole", "--yes")


@pytest.mark.parametrize(
    ("when", "step"),
    [("before", n) for n in range(1, CALLS + 1)] + [("after", n) for n in CHANGING],
)
def test_the_second_run_completes(place: Laptop, when: str, step: int) -> None:
    name = f"box-{when}-{step}"
    (place.folder / "plan").write_text(f"{when} {len(place.calls) + step}\n")
    words = ("up", name, "--yes", "--image", "registry.example/swarm:1")
    assert place.swarm(*words).returncode == -9
    (place.folder / "plan").unlink()
    place.up(name)
    assert place.ssh(name, "echo in") == "in\n"
    app = place.app(name)
    assert (len(place.volumes(name)), len(app.addresses)) == (1, 1)
    assert len(place.machines(name)) == 1
    place.fly("apps", "destroy", name, "--yes")
