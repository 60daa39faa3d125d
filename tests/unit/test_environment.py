"""The environment of sessions is bounded: sshd must be able to read it."""

from pathlib import Path

import pytest

from agent.platform.account import Account
from agent.platform.environment import (
    MOST_OF_ONE,
    MOST_TOGETHER,
    OWN_SECRETS,
    image_names,
    session_environment,
)
from agent.settings import load
from deploy.swarm.place import Deployed
from deploy.swarm.wish import for_sessions

ACCOUNT = Account("dev", 1000, 1000, "/home/dev", "/bin/sh", locked=False)


def test_what_is_too_large_is_named_and_the_rest_is_given() -> None:
    environ = {"HUGE": "x" * (300 << 10), "KEY": "secret", "BROKEN": "a\nb"}
    found = session_environment(environ, frozenset(), ("HUGE", "KEY", "BROKEN"), 1, ACCOUNT)
    assert found.too_large == ("HUGE",)
    assert found.unusable == ("BROKEN",)
    assert found.variables["KEY"] == "secret"
    assert "HUGE" not in found.variables


def test_many_that_are_too_large_together_are_given_as_far_as_they_fit() -> None:
    environ = {f"V{number}": '"' * 20_000 for number in range(20)}
    found = session_environment(environ, frozenset(), tuple(environ), 1, ACCOUNT)
    given = [name for name in found.variables if name.startswith("V")]
    assert len(given) + len(found.too_large) == 20
    assert 0 < len(given) * 40_000 <= MOST_TOGETHER
    assert MOST_OF_ONE > 40_000


def test_what_the_image_was_built_with_is_its_own_and_what_came_later_is_not(
    tmp_path: Path,
) -> None:
    built = tmp_path / "image-env"
    words = ["MY_TOOL=/opt/tool", "API_KEY=placeholder", "HOME=/root", "SWARM_USER=dev", "TERM=x"]
    built.write_bytes("\0".join([*words, ""]).encode())
    environ = dict(word.split("=", 1) for word in words) | {"API_KEY": "secret", "OTHER": "1"}
    assert image_names(environ, str(built)) == {"MY_TOOL"}
    assert image_names(environ, str(tmp_path / "nothing")) == frozenset()


def test_letters_are_utf_8_unless_the_image_says_otherwise() -> None:
    cases: tuple[tuple[dict[str, str], dict[str, str]], ...] = (
        ({}, {"LANG": "C.UTF-8", "LC_CTYPE": "C.UTF-8"}),
        ({"LC_CTYPE": "C.UTF-8"}, {"LANG": "C.UTF-8", "LC_CTYPE": "C.UTF-8"}),  # Python's
        ({"LANG": "de_DE.UTF-8"}, {"LANG": "de_DE.UTF-8"}),
    )
    for environ, expected in cases:
        found = session_environment(environ, frozenset(), (), 1, ACCOUNT).variables
        assert {name: text for name, text in found.items() if name[:2] in ("LA", "LC")} == expected


def test_what_opens_the_copy_of_the_checkpoints_reaches_no_session() -> None:
    environ = dict.fromkeys((*OWN_SECRETS, "API_KEY"), "a")
    found = session_environment(environ, frozenset(), tuple(environ), 1, ACCOUNT).variables
    assert "API_KEY" in found and not set(OWN_SECRETS) & set(found)


@pytest.mark.parametrize(
    ("repository", "given"),
    [("", "AWS_SECRET_ACCESS_KEY API_KEY"), ("s3:https://fly.storage.tigris.dev/b", "API_KEY")],
)
def test_of_an_env_file_sessions_get_what_is_no_key_of_the_checkpoints(
    repository: str, given: str
) -> None:
    state = Deployed(region="ams")
    names = dict.fromkeys((*OWN_SECRETS, "AWS_SECRET_ACCESS_KEY", "API_KEY"), "a")
    for_sessions(state, names | {"SWARM_CHECKPOINT_REPO": repository})
    named = state.env["SWARM_SESSION_ENV"].split(",")
    known = load({}, privileged=True).settings.session_env
    assert [name for name in named if name not in known] == given.split()
