"""What SSH sessions and services get of the machine's environment, and nothing else does.

Secrets reach the agent as environment variables, and every child starts from a clean environment.
What people work with is named in a setting; facts about the machine are always there.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.platform.memory import usable_memory

FACTS = (
    "FLY_APP_NAME",
    "FLY_MACHINE_ID",
    "FLY_MACHINE_VERSION",
    "FLY_REGION",
    "FLY_PRIVATE_IP",
    "FLY_PUBLIC_IP",
    "FLY_IMAGE_REF",
    "FLY_PROCESS_GROUP",
    "FLY_VM_MEMORY_MB",
    "PRIMARY_REGION",
)
"""Variables of Fly.io that are no secrets; by name, because FLY_API_TOKEN is one."""

NODE_OPTIONS = "NODE_OPTIONS"

_NODE_SHARE = 0.75
_NODE_LEAST = 256


@dataclass(frozen=True, slots=True)
class SessionEnvironment:
    """Variables by name, and the names of those that cannot be given: they have line breaks."""

    variables: Mapping[str, str]
    unusable: tuple[str, ...] = ()


def session_environment(
    environ: Mapping[str, str], names: tuple[str, ...], agents: int
) -> SessionEnvironment:
    """Of the agent's environment, the facts and the named variables; and Node's heap.

    Each of `agents` Node programs gets its share of three quarters of the memory, unless
    NODE_OPTIONS is given.
    """
    chosen = {name: environ[name] for name in (*FACTS, NODE_OPTIONS, *names) if name in environ}
    usable = {name: value for name, value in chosen.items() if not set(value) & set("\n\r\0")}
    heap = max(_NODE_LEAST, int(usable_memory() * _NODE_SHARE / agents) >> 20)
    defaults = {NODE_OPTIONS: f"--max-old-space-size={heap}"}
    return SessionEnvironment(defaults | usable, tuple(sorted(chosen.keys() - usable.keys())))
