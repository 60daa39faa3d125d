import grp
import os
import pwd
from pathlib import Path

import pytest

from agent.platform import volume


def never(reason: str, kept_as: str) -> None:
    raise AssertionError(f"{reason} {kept_as}")


def test_a_file_is_replaced_as_a_whole_and_ours_alone(tmp_path: Path) -> None:
    with volume.own_folder(str(tmp_path), never) as folder:
        assert folder.read("file") is None
        folder.write("file", b"one")
        folder.write("file", b"two")
        assert folder.read("file") == b"two"
    path = tmp_path / ".swarm" / "file"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["link", "fifo", "folder", "open", "linked"])
def test_what_is_not_a_file_of_ours_is_not_read(tmp_path: Path, name: str) -> None:
    with volume.own_folder(str(tmp_path), never) as folder:
        own = tmp_path / ".swarm"
        (own / "secret").write_bytes(b"secret")
        (own / "secret").chmod(0o600)
        (own / "link").symlink_to("secret")
        os.mkfifo(own / "fifo", 0o600)
        (own / "folder").mkdir(0o700)
        (own / "open").touch(0o644)
        (own / "linked").touch(0o600)
        os.link(own / "linked", own / "other")
        with pytest.raises(volume.NotTrusted):
            folder.read(name)


def test_a_link_in_the_place_of_our_folder_is_set_aside(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    (tmp_path / ".swarm").symlink_to(target)
    told: list[tuple[str, str]] = []
    with volume.own_folder(str(tmp_path), lambda *words: told.append(words)) as folder:
        folder.write("file", b"one")
    assert not list(target.iterdir())
    [(_, kept_as)] = told
    assert Path(kept_as).is_symlink()


def test_a_folder_is_safe_by_name_when_nobody_else_can_rename_it(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    assert volume.is_safe_by_name(str(inner))
    inner.chmod(0o1777)
    assert volume.is_safe_by_name(str(inner))
    inner.chmod(0o777)
    assert volume.replaceable_in(str(inner)) == str(inner)
    assert not volume.is_safe_by_name(str(inner))
    inner.chmod(0o755)
    outer.chmod(0o757)
    assert volume.replaceable_in(str(inner)) == str(outer)


@pytest.mark.parametrize(
    ("members", "other_account", "mode", "safe"),
    [
        ([], None, 0o775, True),
        (["ann"], None, 0o775, True),
        (["ann", "bob"], None, 0o775, False),
        ([], "bob", 0o775, False),
        ([], None, 0o777, False),
    ],
)
def test_an_accounts_private_group_may_write(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    members: list[str],
    other_account: str | None,
    mode: int,
    safe: bool,
) -> None:
    """Debian gives each account its own group, and umask 002."""
    uid, gid = 4242, 4243
    folder = tmp_path / "clone"
    folder.mkdir()
    folder.chmod(mode)
    ann = pwd.struct_passwd(("ann", "x", uid, gid, "", "/home/ann", "/bin/sh"))
    accounts = [ann]
    if other_account:
        accounts.append(pwd.struct_passwd((other_account, "x", uid + 1, gid, "", "/", "/bin/sh")))
    group = grp.struct_group(("ann", "x", gid, members))
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: ann)
    monkeypatch.setattr(pwd, "getpwall", lambda: accounts)
    monkeypatch.setattr(grp, "getgrgid", lambda _: group)
    status = os.stat(folder)
    fields = [*status[:4], uid, gid, *status[6:]]
    assert volume._others_cannot_rename_in(os.stat_result(fields)) is safe
