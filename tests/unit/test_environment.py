"""What sessions get has a bound: sshd must be able to read it."""

from agent.platform.account import Account
from agent.platform.environment import MOST_OF_ONE, MOST_TOGETHER, session_environment

ACCOUNT = Account("dev", 1000, 1000, "/home/dev", "/bin/sh", locked=False)


def test_what_is_too_large_is_named_and_the_rest_is_given() -> None:
    environ = {"HUGE": "x" * (300 << 10), "KEY": "secret", "BROKEN": "a\nb"}
    found = session_environment(environ, ("HUGE", "KEY", "BROKEN"), 1, ACCOUNT)
    assert found.too_large == ("HUGE",)
    assert found.unusable == ("BROKEN",)
    assert found.variables["KEY"] == "secret"
    assert "HUGE" not in found.variables


def test_many_that_are_too_large_together_are_given_as_far_as_they_fit() -> None:
    environ = {f"V{number}": '"' * 20_000 for number in range(20)}
    found = session_environment(environ, tuple(environ), 1, ACCOUNT)
    given = [name for name in found.variables if name.startswith("V")]
    assert len(given) + len(found.too_large) == 20
    assert 0 < len(given) * 40_000 <= MOST_TOGETHER
    assert MOST_OF_ONE > 40_000
