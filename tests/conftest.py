import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.claims import SHARED
from tests.cloud import Cloud
from tests.limited import Limited
from tests.messages import Model, model
from tests.services import Services
from tests.support import ROOT, Box, Client, Key, make_key

BoxMaker = Callable[..., Box]
CloudMaker = Callable[..., Cloud]


# The time of an example depends on the computer, not on the code.
hypothesis.settings.register_profile(
    "swarm", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("swarm")


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: most tests mostly wait, so each core runs several at once."""
    return 4 * len(os.sched_getaffinity(0))


def pytest_configure(config: pytest.Config) -> None:
    if SHARED not in os.environ:  # a worker has it from who starts the workers
        os.environ[SHARED] = tempfile.mkdtemp(prefix="swarm-tests-", dir="/var/tmp")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(SHARED)))
    if hasattr(config, "workerinput"):
        for number in (signal.SIGHUP, signal.SIGINT):
            # Ignored where a shell runs it in the background: what a test starts would ignore it.
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)


COSTLY = {"shared_box", "shared_laptop", "watched", "bulk", "place"}
"""Fixtures that a module's tests share: one worker runs all of these tests."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("root") and not ROOT:
            item.add_marker(pytest.mark.skip(reason="needs root: namespaces and other accounts"))
        if isinstance(item, pytest.Function) and COSTLY & set(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))
    if not session.config.getoption("numprocesses", None) and not hasattr(
        session.config, "workerinput"
    ):
        return
    _mix(items)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell the groups of tests to the one who deals them out, as pytest-xdist 3.8 means to.

    It changes an attribute that pytest 9.2 does not look at any more.
    """
    for item in session.items:
        wanted = getattr(item, "_nodeid", item.nodeid)
        if wanted != item.nodeid:
            item._id = type(item.id).parse(wanted)


def _mix(items: list[pytest.Item]) -> None:
    """The order for workers: who waits long first, then of each file a share at any time.

    Tests of one file all wait, or all compute; both together use the processors. The short ones of
    tests/unit come last, so that the workers end together.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    place = {
        item: (number + 0.5) / len(tests)
        for tests in files.values()
        for number, item in enumerate(tests)
    }

    def key(item: pytest.Item) -> tuple[bool, bool, float]:
        is_long = item.get_closest_marker("long") is not None
        return not is_long, item.path.parent.name == "unit", place[item]

    items.sort(key=key)


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return make_key(tmp_path_factory.mktemp("keys") / "ann")


@pytest.fixture
def make_box(tmp_path: Path, key: Key) -> Iterator[BoxMaker]:
    """Creates machines that are stopped after the test."""
    boxes: list[Box] = []

    def make(**machine: Any) -> Box:
        box = Box(tmp_path / f"box{len(boxes)}", key, **machine)
        boxes.append(box)
        return box

    yield make
    for box in boxes:
        box.machine.kill()


@pytest.fixture
def the_model() -> Iterator[Model]:
    """The stand-in for the model of Claude Code."""
    with model() as told:
        yield told


@pytest.fixture
def make_cloud(tmp_path: Path, key: Key) -> Iterator[CloudMaker]:
    """Creates machines on the stand-in for the platform; they are stopped after the test."""
    clouds: list[Cloud] = []

    def make(**how: Any) -> Cloud:
        cloud = Cloud(tmp_path / f"cloud{len(clouds)}", key, **how)
        clouds.append(cloud)
        return cloud

    yield make
    for cloud in clouds:
        cloud.down()


@pytest.fixture
def box(make_box: BoxMaker) -> Box:
    """A machine that is up."""
    return make_box().boot()


@pytest.fixture
def services(make_box: BoxMaker, tmp_path: Path) -> Services:
    """A machine that has services after its boot."""
    return Services(make_box(), tmp_path / "services.d")


@pytest.fixture(scope="module")
def shared_box(tmp_path_factory: pytest.TempPathFactory, key: Key) -> Iterator[Box]:
    """A machine that is up for all tests of a module; none may change it."""
    box = Box(tmp_path_factory.mktemp("shared") / "box", key).boot()
    yield box
    box.machine.kill()


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    """A list for logins, which are ended after the test."""
    found: list[Client] = []
    yield found
    for client in found:
        client.process.kill()
        client.process.wait()


@pytest.fixture
def few_processes() -> Iterator[Limited]:
    group = Limited("pids", "pids.max")
    yield group
    group.remove()


@pytest.fixture
def little_memory() -> Iterator[Limited]:
    group = Limited("memory", "memory.max")
    yield group
    group.remove()
