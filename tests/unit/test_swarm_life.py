"""The life of a machine, as `swarm` sees it through flyctl."""

import json
import socket
from pathlib import Path

import pytest

from deploy.swarm import life, ssh
from deploy.swarm.fly import Fly
from deploy.swarm.place import FOLDER_VARIABLE, Place
from deploy.swarm.show import Show

FLYCTL = """#!/bin/sh
case "$1" in
machine) echo '{machines}' ;;
logs) echo 'cannot run /usr/sbin/sshd' ;;
esac
"""


@pytest.mark.timeout(60)
def test_a_machine_that_fails_while_its_connection_is_held_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform accepts the connection and waits for the machine; ssh would wait as long."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(life, "_ATTEMPT", 1)
    program = tmp_path / "flyctl"
    machines = [{"id": "m", "state": "stopped", "region": "ams"}]
    program.write_text(FLYCTL.format(machines=json.dumps(machines)))
    program.chmod(0o755)
    where = Place("box")
    where.ssh_config.parent.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        where.ssh_config.write_text(f"Host box\n  HostName 127.0.0.1\n  Port {port}\n")
        monkeypatch.setattr(ssh, "ANSWER", 3600)
        with pytest.raises(life.LifeError, match="exited at its start") as error:
            life.require_login(where, Fly((str(program),), Show(quiet=True)), 3600)
    assert "cannot run /usr/sbin/sshd" in str(error.value)
