"""Running flyctl: retries at the API's rate limit, and explained errors."""

from pathlib import Path

import pytest

from deploy.swarm import fly as flys
from deploy.swarm.fly import Fly
from deploy.swarm.flyerrors import FlyError, RateLimitError, UnreachableError, explained
from deploy.swarm.show import Show

LIMITED = "Error: request returned non-2xx status: 429: slow down"


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fly:
    """A flyctl that always hits the rate limit, and records its calls."""
    monkeypatch.setattr(flys, "PAUSES", (0.0, 0.0))
    program = tmp_path / "flyctl"
    program.write_text(f"#!/bin/sh\necho \"$*\" >>{tmp_path}/calls\necho '{LIMITED}' >&2\nexit 1\n")
    program.chmod(0o755)
    return Fly((str(program),), Show(quiet=True))


def calls(fly: Fly) -> int:
    return len(Path(fly.program[0]).with_name("calls").read_text().splitlines())


def test_a_rate_limit_that_stays_is_an_error_in_the_end(limited: Fly) -> None:
    with pytest.raises(RateLimitError, match="wait a minute"):
        limited.machines("box")
    assert calls(limited) == 3


@pytest.mark.parametrize(
    "words", [("apps", "create", "x"), ("volumes", "create", "v"), ("ips", "allocate-v4")]
)
def test_what_makes_something_is_not_repeated(limited: Fly, words: tuple[str, ...]) -> None:
    with pytest.raises(RateLimitError):
        limited.do(*words)
    assert calls(limited) == 1


@pytest.mark.parametrize(
    ("said", "kind", "says"),
    [
        (
            "Error: failed to run query($app: String) { app { network } }: server returned a "
            "non-200 status code: 429",
            RateLimitError,
            "rate limit",
        ),
        (
            "Error: failed to run query { network { name } }: decoding response: invalid "
            "character '<' looking for beginning of value",
            FlyError,
            "status.flyio.net",
        ),
        ("Error: server returned a non-200 status code: 401", FlyError, "fly auth login"),
        ("Error: host h is unreachable", UnreachableError, "swarm move"),
        ("Error: \x1b[31mno\x1b[0m", FlyError, "fly apps list: no"),
    ],
)
def test_a_failure_is_explained_without_the_query(
    said: str, kind: type[FlyError], says: str
) -> None:
    error = explained(["apps", "list"], said)
    assert type(error) is kind
    assert says in str(error)
    assert "network" not in str(error)
