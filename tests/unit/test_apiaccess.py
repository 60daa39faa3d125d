"""Only root may use the platform's API in the machine."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.platform import apiaccess
from agent.platform.account import Account
from tests.support import let_others_in

pytestmark = pytest.mark.attack

SOMEBODY = Account("nobody", 65534, 65534, "/", "/bin/sh", locked=False)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Path]:
    let_others_in(tmp_path)
    path = tmp_path / "api"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        yield path


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o777, 0o666, 0o602])
def test_root_closes_it_for_the_account(api: Path, mode: int) -> None:
    api.chmod(mode)
    assert apiaccess.may_use(str(api), SOMEBODY)
    assert apiaccess.close(str(api), SOMEBODY) is None
    assert not apiaccess.may_use(str(api), SOMEBODY)
    assert api.stat().st_mode & 0o700 == mode & 0o700


@pytest.mark.root
def test_one_that_belongs_to_the_account_is_taken_back(api: Path) -> None:
    os.chown(api, SOMEBODY.uid, SOMEBODY.gid)
    api.chmod(0o700)
    assert apiaccess.close(str(api), SOMEBODY) is None
    assert not apiaccess.may_use(str(api), SOMEBODY)


@pytest.mark.root
def test_a_folder_that_the_account_cannot_enter_keeps_it_out(api: Path) -> None:
    api.chmod(0o777)
    api.parent.chmod(0o700)
    assert not apiaccess.may_use(str(api), SOMEBODY)


@pytest.mark.root
def test_what_cannot_be_closed_is_reported(api: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api.chmod(0o777)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "chmod", refuse)
    said = apiaccess.close(str(api), SOMEBODY)
    assert said is not None
    assert "may use the Machines API" in said


def test_where_there_is_none_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert apiaccess.close(str(tmp_path / "none"), SOMEBODY) is None
