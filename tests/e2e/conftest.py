from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.laptop import Laptop


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    made = Laptop(tmp_path / "laptop")
    yield made
    made.down()


@pytest.fixture(scope="module")
def shared_laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A laptop with a running machine `box`, for all tests of a module."""
    made = Laptop(tmp_path_factory.mktemp("shared") / "laptop")
    made.up("box")
    yield made
    made.down()
