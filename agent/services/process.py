"""The process of a service: started with user, folder, environment, limits; ended with descendants.

All its descendants belong to the service, even if they leave its process group or session or lose
their parent. Where we can create a cgroup, the kernel keeps track of them; elsewhere they are found
by their parents, their session, and a mark in the environment that they started with.
"""

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from agent.init import groups, proctree
from agent.init.children import Child, Children, set_oom_score_adj
from agent.init.descriptor import Descriptor
from agent.platform.account import credentials_of, environment_of
from agent.services.definition import Service
from agent.services.output import Stream

# A shell that waits until the other limits are set, sets nofile, and becomes the program.
_WAIT = 'read -r nofile && { [ -z "$nofile" ] || ulimit -n "$nofile"; } && exec "$@" </dev/null'

MARK = "SWARM_SERVICE"
"""The environment variable that names the service of a process."""


@dataclass(frozen=True, slots=True)
class Started:
    """A running process, and our ends of its `stdout` and `stderr`.

    `leader_started` is when it began, in clock ticks since the kernel's boot; `group` the folder of
    its group (agent/init/groups.py), if it has one.
    """

    service: str
    child: Child
    streams: Mapping[str, Stream]
    leader_started: int
    group: str | None


def start(service: Service, children: Children, given: Mapping[str, str]) -> Started:
    """Start the service's process. Raises `OSError`.

    `given` is added to its user's basic environment (HOME and the like).
    """
    environ = environment_of(service.user) | dict(given) | {MARK: service.name}
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    try:
        with groups.born_in(service.name) as group:
            child = _spawn(service, children, environ, out_write, err_write)
    except OSError:
        os.close(out_read)
        os.close(err_read)
        raise
    finally:
        os.close(out_write)
        os.close(err_write)
    leader = proctree.read_process(child.pid)
    streams = {"stdout": Stream(Descriptor(out_read)), "stderr": Stream(Descriptor(err_read))}
    started = 0 if leader is None else leader.started
    return Started(service.name, child, streams, started, group)


def signal_all(started: Started, number: int) -> None:
    """Signal all processes of the service, even if its first process has ended."""
    started.child.send_group(number)
    for process in members(started):
        if process.group != started.child.pid or not started.child.running:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


def has_ended(started: Started) -> bool:
    """No process of the service runs any more."""
    return not started.child.running and not members(started)


def forget(started: Started) -> None:
    """Remove its group. Call it once all its processes have ended or cannot be killed."""
    if started.group is not None:
        groups.remove(started.group)


def members(started: Started) -> list[proctree.Process]:
    """The living processes of the service."""
    grouped = set() if started.group is None else groups.members(started.group)
    leader, ours = started.child.pid, os.getpid()
    found: dict[int, proctree.Process] = {}
    # A process older than the leader belongs to something else that had the same id.
    young = [
        process
        for process in proctree.all_processes()
        if process.started >= started.leader_started and process.state not in "ZX"
    ]
    children: dict[int, list[proctree.Process]] = {}
    for process in young:
        children.setdefault(process.parent, []).append(process)
    waiting = [
        process
        for process in young
        if process.pid in grouped
        or leader in (process.group, process.session)
        or (
            # Only without groups: reading the memory of a process may have to wait for its owner.
            started.group is None
            and process.parent == ours
            and _is_marked(process.pid, started.service)
        )
    ]
    while waiting:
        process = waiting.pop()
        if process.pid not in found:
            found[process.pid] = process
            waiting += children.get(process.pid, ())
    return list(found.values())


def _is_marked(pid: int, service: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARK}={service}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def _spawn(
    service: Service, children: Children, environ: Mapping[str, str], stdout: int, stderr: int
) -> Child:
    limited = (service.nofile, service.nice, service.oom_score_adj) != (None, None, None)
    argv = list(service.command)
    stdin: int = subprocess.DEVNULL
    gate: tuple[int, int] | None = None
    if limited:
        gate = os.pipe()
        stdin, argv = gate[0], ["/bin/sh", "-c", _WAIT, "sh", *argv]
    try:
        child = children.spawn(
            argv,
            env=environ,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=service.cwd,
            run_as=credentials_of(service.user),
        )
        if gate is not None:
            _limit(child.pid, service)
            os.write(gate[1], f"{service.nofile or ''}\n".encode())
    finally:
        if gate is not None:
            os.close(gate[0])
            os.close(gate[1])
    return child


def _limit(pid: int, service: Service) -> None:
    if service.nice is not None:
        os.setpriority(os.PRIO_PROCESS, pid, service.nice)
    if service.oom_score_adj is not None:
        set_oom_score_adj(pid, service.oom_score_adj)
