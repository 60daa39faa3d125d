import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.image.images import Image, build
from tests.image.machine import ImageMachine
from tests.support import Box, Key

Boot = Callable[..., Box]


@pytest.fixture(scope="session", params=["bookworm", "trixie"])
def suite(request: pytest.FixtureRequest) -> str:
    if os.geteuid() != 0:
        pytest.skip("needs root: debootstrap, buildah, namespaces")
    return str(request.param)


@pytest.fixture(scope="session")
def remote(suite: str) -> Image:
    return build(suite, "remote")


@pytest.fixture(scope="session")
def remote_root(remote: Image) -> Iterator[Path]:
    with remote.mounted() as root:
        yield root


@pytest.fixture
def make_box(remote: Image, remote_root: Path, tmp_path: Path, key: Key) -> Iterator[Boot]:
    """Creates machines from the image; they are stopped after the test."""
    boxes: list[Box] = []

    def make(network: str = "") -> Box:
        folder = tmp_path / f"box{len(boxes)}"
        box = Box(folder, key, ImageMachine(folder, remote, remote_root, network))
        boxes.append(box)
        return box

    yield make
    for box in boxes:
        box.machine.kill()
