"""Whose keys may log in: secrets of the app, one for each person.

A key is staged as a secret, which the machine gets at its next deploy or restart. If the machine is
awake, the key is also written to its keys folder, which the agent watches: it is valid at once, and
no session ends. Removing a key needs a restart: the agent has it from its environment.
"""

import base64
import shlex

from deploy.swarm import life, secrets, up
from deploy.swarm.fly import Fly
from deploy.swarm.flyerrors import FlyError
from deploy.swarm.place import Place
from deploy.swarm.records import ListedMachine
from deploy.swarm.wish import KEYS, UpError, person_of, secret_name

FOLDER = "/etc/swarm/keys.d"
"""The folder in which the agent looks for keys, besides its environment."""


def replaces(where: Place, fly: Fly, secret: str, text: str) -> bool:
    """Whether this person already has another key."""
    there = secret in fly.secrets(where.name)
    return there and where.state().secrets.get(secret) != up.digest(text)


def give(where: Place, fly: Fly, person: str, text: str) -> str:
    """Let keys log in; returns what was done."""
    secret = secret_name(person)
    secrets.give(fly, where.name, {secret: text}, f"key of {person_of(secret)}")
    state = where.state()
    up.remember_secrets(state, {secret: text})
    where.keep(state)
    who = person_of(secret)
    machine = fly.machine(where.name)
    if machine is not None and machine.awake and _written(fly, where.name, machine, who, text):
        return (
            f"{who} may log in, at once and without a restart (from the next restart on the secret "
            f"counts: swarm restart {where.name} when nobody works)"
        )
    return f"{who} may log in: {life.apply_secrets(fly, where.name)}"


def _written(fly: Fly, app: str, machine: ListedMachine, who: str, text: str) -> bool:
    """Write the key to the machine's keys folder."""
    content = base64.b64encode(f"{text}\n".encode()).decode()
    script = f"mkdir -p {FOLDER} && echo {content} | base64 -d >{FOLDER}/{who}.pub"
    try:
        fly.told(app, machine, f"sh -c {shlex.quote(script)}", 20)
    except FlyError:
        return False
    return True


def take(where: Place, fly: Fly, person: str) -> str:
    """Remove a person's keys. Raises `UpError`."""
    secret = secret_name(person)
    there = fly.secrets(where.name)
    if secret not in there:
        raise UpError(f"{person} has no key there: swarm keys list {where.name}")
    if [each for each in there if each.startswith(KEYS)] == [secret]:
        raise UpError("it is the last key: add another first, or nobody can log in")
    unset(where, fly, [secret])
    machine = fly.machine(where.name)
    if machine is not None and machine.awake:
        path = f"{FOLDER}/{person_of(secret)}.pub"
        fly.told(where.name, machine, f"rm -f {path}", 20)
    return f"{person} may no longer log in: {life.apply_secrets(fly, where.name)}"


def unset(where: Place, fly: Fly, names: list[str]) -> None:
    """Stage the removal of secrets. Raises `UpError` for one that does not exist."""
    there = fly.secrets(where.name)
    if missing := [name for name in names if name not in there]:
        raise UpError(f"no secret {', '.join(missing)}: swarm secrets list {where.name}")
    words = ["secrets", "unset", *names, "--app", where.name, "--stage"]
    fly.do(*words, why=f"removes {', '.join(names)}")
    state = where.state()
    for each in names:
        state.secrets.pop(each, None)
        state.secrets_at.pop(each, None)
    where.keep(state)
