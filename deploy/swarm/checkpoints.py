"""Checkpoints of a machine, from the laptop: restore one, or upload the last before it ends."""

import re
import shlex
import subprocess
import time

import msgspec

from deploy.swarm import ssh
from deploy.swarm.place import Place

PATIENCE = 1800.0
"""Seconds that the last upload may take."""

TICK = 2.0


class CheckpointError(Exception):
    """The machine could not do it; the message says why."""


class Report(msgspec.Struct, frozen=True):
    """The part of `swarm-agent checkpoints --json` about the repository away from the machine."""

    away: str = ""
    upload_pending: bool = False
    upload_problem: str = ""


def report(where: Place) -> Report:
    """The state of the machine's checkpoints; defaults if its agent has no checkpoints yet."""
    try:
        return msgspec.json.decode(_agent(where, "checkpoints", "--json"), type=Report)
    except (CheckpointError, msgspec.DecodeError):
        return Report()


def restore(where: Place, checkpoint: str) -> str:
    """Restore a checkpoint from the repository away from the machine; returns what the agent says.

    Raises `CheckpointError`.
    """
    if not re.fullmatch(r"latest|[0-9a-f]{4,64}", checkpoint):
        raise CheckpointError(f"{checkpoint!r} is not a checkpoint ID")
    return _agent(where, "restore", checkpoint, "--away").strip()


def copy_away(where: Place) -> None:
    """Make a last checkpoint, and wait until everything is uploaded. Raises `CheckpointError`."""
    _agent(where, "checkpoint", "--note", "before its machine is destroyed")
    end = time.monotonic() + PATIENCE
    while (now := report(where)).upload_pending:
        if time.monotonic() > end:
            raise CheckpointError(f"not copied to {now.away} in time: {now.upload_problem}")
        time.sleep(TICK)


def _agent(where: Place, *words: str) -> str:
    command = ssh.command(where, [shlex.join(["swarm-agent", *words])], ["-o", "BatchMode=yes"])
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-400:]
        raise CheckpointError(f"{where.name}: {said}")
    return done.stdout
