"""The process of a service: started with user, folder, environment and limits; ended as a group."""

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from agent.init import proctree
from agent.init.children import Child, Children, set_oom_score_adj
from agent.init.descriptor import Descriptor
from agent.platform.account import credentials_of, environment_of
from agent.services.definition import Service
from agent.services.output import Stream

# A shell that waits until the other limits are set, sets its own, and becomes the program.
_WAIT = 'read -r nofile && { [ -z "$nofile" ] || ulimit -n "$nofile"; } && exec "$@" </dev/null'


@dataclass(frozen=True, slots=True)
class Started:
    """A running process, and our ends of its `stdout` and `stderr`.

    `leader_started` is when it began, in clock ticks since the kernel's boot.
    """

    child: Child
    streams: Mapping[str, Stream]
    leader_started: int


def start(service: Service, children: Children, given: Mapping[str, str]) -> Started:
    """Start the service's process. Raises `OSError`.

    `given` is what its environment has beside its user's HOME and the like.
    """
    environ = environment_of(service.user) | dict(given)
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    try:
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
    return Started(child, streams, 0 if leader is None else leader.started)


def signal_all(started: Started, number: int) -> None:
    """Signal every process of the service, also after its main process has ended."""
    if started.child.running:
        started.child.send_group(number)
        return
    for process in _rest(started):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, number)


def has_ended(started: Started) -> bool:
    """No process of the service is left."""
    if started.child.running:
        return False
    try:
        os.killpg(started.child.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    # A zombie whose parent does not wait for it is in the group as well.
    return not _rest(started)


def _rest(started: Started) -> list[proctree.Process]:
    """The rest of the process group after its leader has ended."""
    return [
        process
        for process in proctree.all_processes()
        # A process that began before the leader is of another group that had this number.
        if process.group == started.child.pid
        and process.started >= started.leader_started
        and process.state not in "ZX"
    ]


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
