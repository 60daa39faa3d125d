"""`swarm audit` checks a machine's safety; `swarm doctor` finds why ssh does not work.

Each finding says what was checked and, where something is wrong, what to do.
"""

import subprocess
import time
from collections.abc import Iterator

import msgspec

from agent import places, words
from deploy.swarm import life, ssh
from deploy.swarm.finding import Finding, Level
from deploy.swarm.fly import Fly
from deploy.swarm.flyerrors import FlyError
from deploy.swarm.place import Place
from deploy.swarm.records import ListedMachine
from deploy.swarm.up import VOLUME
from deploy.swarm.wish import KEYS, person_of

DAY = 86400.0
OLD_KEY, OLD_IMAGE, STORM = 365 * DAY, 30 * DAY, 1000

_SSHD = {
    "passwordauthentication": "no",
    "kbdinteractiveauthentication": "no",
    "permitemptypasswords": "no",
    "permitrootlogin": "no",
    "x11forwarding": "no",
    "permituserenvironment": "no",
    "authenticationmethods": "publickey",
}


class _Ban(msgspec.Struct, frozen=True):
    network: str


def audit(where: Place, fly: Fly) -> Iterator[Finding]:
    """Check a machine's safety. A sleeping one is not woken: less can be checked."""
    yield from _secrets(where, fly)
    yield from _addresses(where, fly)
    yield from _image(where)
    machine = fly.machine(where.name)
    if machine is not None and not machine.reachable:
        yield Finding(Level.FAIL, life.unreachable(where.name, machine))
        return
    if machine is None or not machine.awake:
        wake = f"swarm wake {where.name}"
        yield Finding(Level.WARN, "it sleeps: sshd, bans and health were not checked", wake)
        return
    yield from _sshd(where, fly, machine)
    yield from _ports(where, fly, machine)
    yield from _agent(where, fly, machine)


def doctor(where: Place, fly: Fly) -> Iterator[Finding]:
    """Check each step of a connection, and stop at the first that fails."""
    yield Finding(Level.PASS, f"flyctl works, logged in as {fly.require_usable()}")
    if not fly.has_app(where.name):
        yield Finding(Level.FAIL, f"there is no app {where.name}", f"swarm up {where.name}")
        return
    dedicated = [each for each in fly.addresses(where.name) if each.dedicated]
    if not dedicated and not where.state().private:
        yield Finding(Level.FAIL, "no dedicated address", f"swarm up {where.name}")
        return
    if not [each for each in fly.volumes(where.name) if each.name == VOLUME]:
        yield Finding(Level.FAIL, "no volume: all data is lost", f"swarm up {where.name}")
    machine = fly.machine(where.name)
    if machine is None:
        yield Finding(Level.FAIL, "the app has no machine", f"swarm up {where.name}")
        return
    if not machine.reachable:
        yield Finding(Level.FAIL, life.unreachable(where.name, machine))
        return
    yield Finding(Level.PASS, f"the machine is {machine.says} in {machine.region}")
    if machine.parked:
        yield Finding(Level.WARN, "it is parked: no login wakes it", f"swarm wake {where.name}")
        return
    if not where.ssh_config.exists():
        yield Finding(Level.FAIL, "ssh does not know it yet", f"swarm up {where.name}")
        return
    yield _login(where, machine)


def _login(where: Place, machine: ListedMachine) -> Finding:
    result = ssh.answers(where)
    if result.returncode == 0:
        return Finding(Level.PASS, f"ssh {where.name} works")
    said = result.stderr.strip()
    if "Host key verification failed" in said or "REMOTE HOST IDENTIFICATION" in said:
        return Finding(
            Level.FAIL,
            "the host key differs: a new volume, or somebody intercepts the connection",
            f"swarm up {where.name} fetches it again over Fly's own channel",
        )
    if "Permission denied" in said:
        return Finding(
            Level.FAIL, "the key is refused", f"swarm keys add {where.name} ~/.ssh/id_ed25519.pub"
        )
    todo = f"swarm logs {where.name} says why (you may be banned: swarm-agent bans)"
    return Finding(Level.FAIL, f"the ssh login fails ({machine.says}): {said[-200:]}", todo)


def _secrets(where: Place, fly: Fly) -> Iterator[Finding]:
    names = fly.secrets(where.name)
    keys = [name for name in names if name.startswith(KEYS)]
    if not keys:
        yield Finding(Level.FAIL, "no key may log in", f"swarm keys add {where.name} FILE.pub")
    given = where.state().secrets_at
    for name in keys:
        age = time.time() - given.get(name, time.time())
        old = age > OLD_KEY
        days = words.plural(round(age / DAY), "day")
        says = f"key of {person_of(name)}: given {days} ago"
        todo = f"make a new pair and swarm keys add {where.name} FILE.pub" if old else ""
        yield Finding(Level.WARN if old else Level.PASS, says, todo)
    others = [name for name in names if name not in keys]
    yield Finding(Level.PASS, f"secrets: {', '.join(others) or 'none beside the keys'}")


def _addresses(where: Place, fly: Fly) -> Iterator[Finding]:
    found = fly.addresses(where.name)
    shown = ", ".join(f"{each.address} ({each.type})" for each in found)
    yield Finding(Level.PASS, f"reachable at {shown or 'no address'}, port {ssh.PORT} only")


def _image(where: Place) -> Iterator[Finding]:
    at = where.state().deployed_at
    if not at:
        yield Finding(Level.WARN, "the image's age is unknown", f"swarm up {where.name}")
        return
    days = (time.time() - at) / DAY
    old = days > OLD_IMAGE / DAY
    todo = f"swarm up {where.name} --rebuild takes the newest packages" if old else ""
    says = f"the image is {words.plural(round(days), 'day')} old"
    yield Finding(Level.WARN if old else Level.PASS, says, todo)


def _sshd(where: Place, fly: Fly, machine: ListedMachine) -> Iterator[Finding]:
    try:
        command = f"/usr/sbin/sshd -T -f {places.RUN_DIR}/{places.SSHD_CONFIG}"
        said = fly.told(where.name, machine, command)
    except FlyError as error:
        yield Finding(Level.FAIL, f"sshd's effective settings cannot be read: {error}")
        return
    found = dict(line.split(" ", 1) for line in said.lower().splitlines() if " " in line)
    wrong = [name for name, value in _SSHD.items() if found.get(name) != value]
    for name in wrong:
        yield Finding(Level.FAIL, f"sshd: {name} is {found.get(name)}, not {_SSHD[name]}")
    if not wrong:
        yield Finding(Level.PASS, "sshd accepts keys only, no root, no passwords")


def _ports(where: Place, fly: Fly, machine: ListedMachine) -> Iterator[Finding]:
    """Listening ports outside the loopback (proc_net_tcp(5))."""
    said = fly.told(where.name, machine, "/bin/cat /proc/net/tcp /proc/net/tcp6")
    ports = set()
    for line in said.splitlines():
        words = line.split()
        if len(words) > 3 and words[3] == "0A":
            address, _, port = words[1].partition(":")
            loopback = address in ("0100007F", "00000000000000000000000001000000")
            if not loopback and not address.endswith("7F"):
                ports.add(int(port, 16))
    shown = ", ".join(map(str, sorted(ports))) or "none"
    yield Finding(Level.PASS, f"open to the private network: {shown}; to the internet: {ssh.PORT}")


def _agent(where: Place, fly: Fly, machine: ListedMachine) -> Iterator[Finding]:
    try:
        said = fly.told(where.name, machine, f"{life.AGENT} health")
        yield Finding(Level.PASS, said.strip().splitlines()[0] if said.strip() else "healthy")
    except FlyError as error:
        yield Finding(Level.FAIL, f"not healthy: {error}", f"swarm logs {where.name}")
    try:
        told = fly.told(where.name, machine, f"{life.AGENT} bans --json")
        bans = len(msgspec.json.decode(told, type=list[_Ban]))
    except (FlyError, msgspec.DecodeError) as error:
        yield Finding(Level.FAIL, f"the bans cannot be read: {error}")
        return
    storm = bans > STORM
    todo = "allow only your networks: SWARM_ALLOW_FROM in fly.toml" if storm else ""
    yield Finding(Level.WARN if storm else Level.PASS, f"{bans} addresses are banned", todo)


def newest_ssh() -> Finding:
    """The laptop's own ssh."""
    done = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False)
    return Finding(Level.PASS, f"this laptop has {done.stderr.strip()}")
