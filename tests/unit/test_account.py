"""Accounts that sshd refuses, whatever the key, are recognised beforehand and explained."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent.platform.account import Account, refused_because

ACCOUNT = Account("dev", 1000, 1000, "/home/dev", "/bin/sh", locked=False)
TODAY = int(time.time() // 86400)


def refused(tmp_path: Path, account: Account = ACCOUNT, expires: str = "") -> str | None:
    shadow = tmp_path / "shadow"
    shadow.write_text(f"root:*:1:0:9:7::1:\ndev:*:19000:0:99999:7::{expires}:\n")
    return refused_because(account, shadow=str(shadow), nologin=str(tmp_path / "nologin"))


def test_a_good_account(tmp_path: Path) -> None:
    assert refused(tmp_path) is None
    assert refused(tmp_path, expires=str(TODAY + 1)) is None


@pytest.mark.root
def test_an_expired_account(tmp_path: Path) -> None:
    assert "has expired" in str(refused(tmp_path, expires=str(TODAY - 1)))


def test_a_locked_account(tmp_path: Path) -> None:
    assert "is locked" in str(refused(tmp_path, replace(ACCOUNT, locked=True)))


def test_a_shell_that_is_missing_or_no_program(tmp_path: Path) -> None:
    shell = tmp_path / "fish"
    account = replace(ACCOUNT, shell=str(shell))
    assert "missing or not executable" in str(refused(tmp_path, account))
    shell.touch(mode=0o644)
    assert "missing or not executable" in str(refused(tmp_path, account))
    shell.chmod(0o755)
    assert refused(tmp_path, account) is None


def test_nologin(tmp_path: Path) -> None:
    (tmp_path / "nologin").touch()
    assert "nologin exists" in str(refused(tmp_path))
