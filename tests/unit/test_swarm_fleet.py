"""The Machines API as used by `swarm list`."""

import pytest

from deploy.swarm.fleet import Api


@pytest.mark.parametrize(
    ("token", "header"),
    [
        ("fo1_abc", "Bearer fo1_abc"),
        ("fm2_abc,fm2_def", "FlyV1 fm2_abc,fm2_def"),
        ("FlyV1 fm2_abc", "FlyV1 fm2_abc"),
        ("Bearer fo1_abc", "Bearer fo1_abc"),
    ],
)
def test_a_token_is_sent_with_its_scheme_once(token: str, header: str) -> None:
    assert Api("https://api.example", token).headers["Authorization"] == header
