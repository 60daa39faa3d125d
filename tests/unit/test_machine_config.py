"""The machine's fly.toml, and the sizes that Fly.io sells."""

import tomllib

import pytest

from deploy import sizes
from deploy.swarm import place
from deploy.swarm.place import Deployed


def test_no_dockerfile_is_named_in_it() -> None:
    """flyctl would look for it beside that file, where there is none: every deploy would fail."""
    found = tomllib.loads(place.fly_config("box", Deployed()))
    assert found["build"] == {"build-target": "remote"}
    assert (found["app"], found["primary_region"]) == ("box", "ams")
    assert found["mounts"][0]["snapshot_retention"] == 14


def test_an_image_needs_no_build() -> None:
    assert "build" not in tomllib.loads(place.fly_config("box", Deployed(image="r/i:1")))


def test_parked_private_and_settings() -> None:
    parked = tomllib.loads(place.fly_config("box", Deployed(parked=True)))
    assert parked["services"][0]["auto_start_machines"] is False
    private = tomllib.loads(
        place.fly_config("box", Deployed(private=True, env={"SWARM_BUSY": "1"}))
    )
    assert "services" not in private
    assert private["env"]["SWARM_PRIVATE_LISTEN"] == "*:2223"
    assert private["env"]["SWARM_BUSY"] == "1"


@pytest.mark.parametrize(
    ("size", "memory_mb", "says"),
    [
        ("shared-cpu-1x", 256, ""),
        ("shared-cpu-2x", 4096, ""),
        ("shared-cpu-2x", 4352, "takes 0.5 GB to 4 GB"),
        ("shared-cpu-4x", 512, "takes 1 GB to 8 GB"),
        ("shared-cpu-1x", 300, "steps of 256 MB"),
        ("performance-2x", 4096, ""),
        ("performance-2x", 4500, "steps of 1024 MB"),
        ("performance-3x", 8192, "there is no size performance-3x: shared-cpu-1x"),
    ],
)
def test_every_size_has_a_least_and_a_most(size: str, memory_mb: int, says: str) -> None:
    problem = sizes.problem(size, memory_mb)
    assert says in problem if says else problem == ""
