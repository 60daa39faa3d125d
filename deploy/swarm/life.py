"""Wake a machine, put it to sleep, park, restart and stop it; each waits for the new state."""

import time
from collections.abc import Callable
from contextlib import suppress

from agent import safe
from deploy.sizes import SUSPEND_LIMIT
from deploy.swarm import ssh
from deploy.swarm.fly import Fly
from deploy.swarm.flyerrors import FlyError, UnreachableError
from deploy.swarm.place import Place
from deploy.swarm.records import ASLEEP, AWAKE, ON_THE_WAY, ListedMachine

AGENT = "/usr/local/bin/swarm-agent"
SLEEP_LIMIT = 20
"""Seconds that the agent may take before the platform does it instead."""

_FINAL = ("Permission denied", "Host key verification failed")
_LAST = 15
_FAILS, _LATELY = 3, 300.0
"""After so many failed runs within so many seconds we give up waiting."""

_ATTEMPT = 15
"""Seconds of one attempt to log in, until we check that the machine has not failed meanwhile."""

_POLLS = (0.1, 1.0)
"""Seconds between two polls: the first pause, and the longest; each grows by half."""


class LifeError(Exception):
    """A machine does not reach the state it should; the message says which it is in."""


def require(fly: Fly, app: str) -> ListedMachine:
    """The app's machine, on a reachable host. Raises `FlyError`."""
    machine = fly.machine(app)
    if machine is None:
        raise FlyError(f"{app} has no machine: swarm up {app}")
    require_reachable(app, machine)
    return machine


def require_reachable(app: str, machine: ListedMachine) -> None:
    """Check that the platform reaches the machine's host. Raises `UnreachableError`."""
    if not machine.reachable:
        raise UnreachableError(unreachable(app, machine))


def unreachable(app: str, machine: ListedMachine) -> str:
    """The message about a machine whose host does not answer."""
    return (
        f"{app}: Fly.io cannot reach the host of machine {machine.id} in {machine.region} "
        f"({machine.host_status}): see status.flyio.net; nothing can be done in it now. If it "
        f"lasts: swarm backup {app} --snapshot --list, swarm restore {app} --snapshot ID"
    )


def settled(fly: Fly, app: str, patience: float = 60.0) -> ListedMachine:
    """Wait until the machine is in a state that lasts. Raises `FlyError`, `LifeError`."""
    return _until(fly, app, lambda machine: machine.state not in ON_THE_WAY, patience)


def wake(fly: Fly, app: str, patience: float = 60.0) -> ListedMachine:
    """Start the app's machine if it sleeps, and wait until it is started."""
    machine = settled(fly, app, patience)
    if machine.state != AWAKE:
        fly.do("machine", "start", machine.id, "--app", app, why=f"starts {app}")
        machine = _until(fly, app, lambda each: each.awake, patience)
    return machine


def sleep(fly: Fly, app: str, note: Callable[[ListedMachine], None]) -> str:
    """Put the machine to sleep: by its agent, which warns sessions; if that hangs, by the platform.

    `note` is called first, and may fail. Returns how it sleeps.
    """
    machine = settled(fly, app)
    require_reachable(app, machine)
    if machine.state in ASLEEP:
        return f"{app} was {machine.says} already"
    how = ""
    with suppress(FlyError):  # a missing figure must not prevent the sleep
        note(machine)
    try:
        fly.told(app, machine, f"{AGENT} sleep --now", SLEEP_LIMIT)
        machine = _until(fly, app, lambda each: each.state in ASLEEP, SLEEP_LIMIT)
    except (FlyError, LifeError) as error:
        machine = settled(fly, app)
        if machine.awake:
            how = f"; its agent did not do it ({str(error).splitlines()[0]})"
            machine = _by_platform(fly, app, machine)
    return f"{app} is {machine.says}{how}"


def _by_platform(fly: Fly, app: str, machine: ListedMachine) -> ListedMachine:
    if machine.known.guest.memory_mb <= SUSPEND_LIMIT:
        try:
            words = ["machine", "suspend", machine.id, "--app", app, "--wait-timeout", "60s"]
            fly.do(*words, why=f"suspends {app}")
            return _until(fly, app, lambda each: each.state in ASLEEP, 60)
        except FlyError:
            machine = settled(fly, app)
    if machine.awake:
        stop(fly, app)
    return settled(fly, app)


def stop(fly: Fly, app: str) -> ListedMachine:
    """Stop the machine and its processes. It stays asleep until something wakes it."""
    machine = settled(fly, app)
    require_reachable(app, machine)
    if machine.state not in ("stopped", "created"):
        words = ["machine", "stop", machine.id, "--app", app, "--signal", "SIGTERM"]
        fly.do(*words, "--timeout", "30", "--wait-timeout", "60s", why=f"stops {app}")
        machine = _until(fly, app, lambda each: each.state in ("stopped", "created"), 90)
    return machine


def restart(fly: Fly, app: str) -> ListedMachine:
    """Stop and start; a sleeping machine is started."""
    stop(fly, app)
    return wake(fly, app)


def autostart(fly: Fly, app: str, *, on: bool) -> None:
    """Set whether connections wake the machine, without starting it."""
    machine = settled(fly, app)
    if machine.parked is not on:
        return
    stop(fly, app)
    words = ["machine", "update", machine.id, "--app", app, f"--autostart={str(on).lower()}"]
    why = "connections wake it again" if on else "no connection wakes it any more"
    fly.do(*words, "--skip-start", "--yes", why=why)


def apply_secrets(fly: Fly, app: str) -> str:
    """Apply staged secrets; a sleeping machine gets them when it starts."""
    machine = fly.machine(app)
    if machine is None:
        return "they take effect with the first deploy"
    require_reachable(app, machine)
    words = ["machine", "update", machine.id, "--app", app, "--yes", "--skip-health-checks"]
    if machine.awake:
        fly.do(*words, why=f"{app} restarts with them")
        wake(fly, app)
        return "the machine restarted with them"
    fly.do(*words, "--skip-start", why=f"{app} has them when it starts")
    return "the machine sleeps, and has them when it starts"


def require_alive(fly: Fly, app: str, machine: str) -> None:
    """Check that the machine did not exit. Raises `LifeError` with the last lines of its log.

    The platform restarts a failed machine, and so does every connection: it may be starting again.
    """
    found = [each for each in fly.machines(app) if each.id == machine]
    fails = found and found[0].failed_runs(time.time() - _LATELY) >= _FAILS
    if found and (found[0].state in ("stopped", "failed") or fails):
        shown = last_words(fly, app)
        raise LifeError(f"the machine exited at its start ({found[0].says}):\n{shown}")


def require_login(where: Place, fly: Fly, patience: float) -> None:
    """Wait until an ssh login works. Raises `LifeError`."""
    end = time.monotonic() + patience
    options = ["-o", f"ConnectTimeout={_ATTEMPT}"]
    while (result := ssh.answers(where, options)).returncode != 0:
        if time.monotonic() > end or any(word in result.stderr for word in _FINAL):
            said = safe.lines(result.stderr.strip())
            raise LifeError(f"the ssh login fails: {said}\n  swarm doctor {where.name}")
        require_alive(fly, where.name, require(fly, where.name).id)
        time.sleep(1)


def last_words(fly: Fly, app: str) -> str:
    """The last lines of the machine's log, indented."""
    try:
        said = fly.do("logs", "--app", app, "--no-tail", why="reads its log")
    except FlyError as error:
        said = str(error)
    return "\n".join(f"    {safe.line(line)}" for line in said.splitlines()[-_LAST:])


def _until(
    fly: Fly, app: str, good: Callable[[ListedMachine], bool], patience: float
) -> ListedMachine:
    end = time.monotonic() + patience
    pause, longest = _POLLS
    while True:
        machine = require(fly, app)
        if good(machine):
            return machine
        if time.monotonic() > end:
            raise LifeError(f"{app} is still {machine.says} after {patience:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, longest)
