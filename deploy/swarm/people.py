"""Whose keys may log in: secrets of the app, one for each person.

A key is staged as a secret, and the machine takes it when it starts anew. What holds now, in a
machine that is awake, is written into its folder of keys by the agent itself where it has one.
"""

from deploy.swarm import life, secrets, up
from deploy.swarm.fly import Fly
from deploy.swarm.place import Place
from deploy.swarm.wish import KEYS, UpError, person_of, secret_name


def replaces(where: Place, fly: Fly, secret: str, text: str) -> bool:
    """Another key of this person's is there."""
    there = secret in fly.secrets(where.name)
    return there and where.state().secrets.get(secret) != up.digest(text)


def give(where: Place, fly: Fly, person: str, text: str) -> str:
    """Let keys log in; what became of it."""
    secret = secret_name(person)
    secrets.give(fly, where.name, {secret: text}, f"key of {person_of(secret)}")
    state = where.state()
    up.remember_secrets(state, {secret: text})
    where.keep(state)
    return f"{person_of(secret)} may log in: {life.apply_secrets(fly, where.name)}"


def take(where: Place, fly: Fly, person: str) -> str:
    """Let a person's keys log in no more. Raises `UpError`."""
    secret = secret_name(person)
    there = fly.secrets(where.name)
    if secret not in there:
        raise UpError(f"{person} has no key there: swarm keys list {where.name}")
    if [each for each in there if each.startswith(KEYS)] == [secret]:
        raise UpError("it is the last key: add another first, or nobody gets in")
    unset(where, fly, [secret])
    return f"{person} may log in no more: {life.apply_secrets(fly, where.name)}"


def unset(where: Place, fly: Fly, names: list[str]) -> None:
    """Take secrets away, staged. Raises `UpError` for one that is not there."""
    there = fly.secrets(where.name)
    if missing := [name for name in names if name not in there]:
        raise UpError(f"no secret {', '.join(missing)}: swarm secrets list {where.name}")
    words = ["secrets", "unset", *names, "--app", where.name, "--stage"]
    fly.do(*words, why=f"takes away {', '.join(names)}")
    state = where.state()
    for each in names:
        state.secrets.pop(each, None)
        state.secrets_at.pop(each, None)
    where.keep(state)
