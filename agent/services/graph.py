"""The order in which services start and stop. Pure."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from agent.services.definition import Service


def cycle(services: Mapping[str, Service]) -> list[str]:
    """The names along one cycle of `after` and `requires`, the first one again at its end.

    Empty if there is no cycle.
    """
    order = TopologicalSorter({name: service.follows for name, service in services.items()})
    try:
        order.prepare()
    except CycleError as error:
        found: list[str] = error.args[1]  # each starts before the next one
        return found[::-1]
    return []


def stop_order(services: Mapping[str, Service], names: Iterable[str]) -> list[str]:
    """These names, each before the services that it follows."""
    among = frozenset(names)
    order = TopologicalSorter({name: services[name].follows & among for name in sorted(among)})
    return [*order.static_order()][::-1]


def unknown(services: Mapping[str, Service]) -> dict[str, str]:
    """Service → a name that it follows and that does not exist."""
    return {
        service.name: name
        for service in services.values()
        for name in sorted(service.follows)
        if name not in services
    }


def followers(services: Mapping[str, Service], name: str) -> set[str]:
    """The services that directly follow one."""
    return {service.name for service in services.values() if name in service.follows}


def dependents(services: Mapping[str, Service], name: str) -> set[str]:
    """The services that require this one, directly or through another service."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        required = waiting.pop()
        for service in services.values():
            if required in service.requires and service.name not in found:
                found.add(service.name)
                waiting.append(service.name)
    return found
