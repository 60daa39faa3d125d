"""fly.toml, compose.yaml and devcontainer.json agree with the platform's rules and the agent."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from agent.durations import duration
from agent.settings import load

ROOT = Path(__file__).resolve().parents[2]
FLY: dict[str, Any] = tomllib.loads((ROOT / "fly.toml").read_text())
SETTINGS = load({**FLY["env"], "FLY_APP_NAME": "x"}, privileged=True).settings
DOCKERFILE = (ROOT / "container/Dockerfile").read_text()


def test_it_is_valid_by_the_platforms_own_schema() -> None:
    """tests/data/fly.schema.json is Fly.io's public schema of fly.toml."""
    schema = json.loads((ROOT / "tests/data/fly.schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(FLY)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate({**FLY, "kill_timeout": []})


def test_no_key_is_ignored_silently() -> None:
    """`fly deploy` says nothing of keys that it does not know."""
    assert set(FLY["build"]) == {"dockerfile", "build-target"}
    assert FLY["build"]["build-target"] == "remote"
    assert (ROOT / FLY["build"]["dockerfile"]).exists()
    assert not [name for name in FLY["env"] if name.startswith("FLY_")]
    assert all(isinstance(value, str) for value in FLY["env"].values())


def test_ssh_by_proxy_protocol_on_a_port_that_is_not_the_platforms() -> None:
    [service] = FLY["services"]
    [port] = service["ports"]
    assert service["internal_port"] == SETTINGS.listen.port != 22
    assert port["handlers"] == ["proxy_proto"]
    assert port["proxy_proto_options"] == {"version": "v2"}
    assert port["port"] not in (22, 2222)
    assert SETTINGS.proxy_protocol == "required"
    assert SETTINGS.listen.host == ""  # the proxy does not reach the loopback


def test_the_proxy_wakes_and_only_the_agent_puts_to_sleep() -> None:
    [service] = FLY["services"]
    assert service["auto_start_machines"] is True
    assert service["auto_stop_machines"] == "off"
    assert SETTINGS.sleep_mode == "auto"
    assert FLY["restart"][0]["policy"] == "on-failure"


def test_the_platform_waits_for_the_agents_whole_stop() -> None:
    assert FLY["kill_signal"] == "SIGTERM"
    assert 300 >= duration(FLY["kill_timeout"]) >= SETTINGS.stop_timeout + 10


def test_checks_and_metrics_ask_the_agents_own_port() -> None:
    assert SETTINGS.http_listen is not None
    assert FLY["metrics"] == {"port": SETTINGS.http_listen.port, "path": "/metrics"}
    [check] = FLY["checks"].values()
    assert (check["type"], check["path"]) == ("http", "/healthz")
    assert check["port"] == SETTINGS.http_listen.port
    assert "tcp_checks" not in FLY["services"][0]


def test_the_volume_is_where_the_agent_looks_for_it() -> None:
    [mount] = FLY["mounts"]
    assert mount["destination"] == SETTINGS.volume
    assert 1 <= mount["snapshot_retention"] <= 60
    extend = [name for name in mount if name.startswith("auto_extend")]
    assert len(extend) == 3  # all or none
    assert 50 <= mount["auto_extend_size_threshold"] <= 99


def test_the_default_size_can_be_suspended() -> None:
    [vm] = FLY["vm"]
    cpus = int(re.fullmatch(r"shared-cpu-(\d+)x", vm["size"])[1])  # type: ignore[index]
    memory = int(re.fullmatch(r"(\d+)gb", vm["memory"])[1])  # type: ignore[index]
    assert memory <= 2
    assert memory <= 2 * cpus
    assert "swap_size_mb" not in FLY


def test_the_image_serves_what_the_platform_asks_for() -> None:
    exposed = re.search(r"^EXPOSE (.*)$", DOCKERFILE, re.M)
    assert exposed is not None
    assert exposed[1].split() == [
        str(FLY["services"][0]["internal_port"]),
        str(FLY["metrics"]["port"]),
    ]


def test_the_dev_container_builds_the_local_target_of_the_same_file() -> None:
    config = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    build = config["build"]
    folder = ROOT / ".devcontainer"
    assert (folder / build["dockerfile"]).resolve() == ROOT / "container/Dockerfile"
    assert (folder / build["context"]).resolve() == ROOT
    assert build["target"] == "local"


def test_compose_runs_the_remote_target_and_leaves_time_to_stop() -> None:
    compose = yaml.safe_load((ROOT / "container/compose.yaml").read_text())
    service = compose["services"]["swarm"]
    assert service["build"]["target"] == "remote"
    assert (ROOT / "container" / service["build"]["context"]).resolve() == ROOT
    assert duration(service["stop_grace_period"]) >= SETTINGS.stop_timeout + 10
    assert service["volumes"] == ["workspace:/workspace"]
    # A port on all interfaces would open the laptop to its network.
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
