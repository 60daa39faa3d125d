"""The order of services: who starts before whom. Pure."""

from collections.abc import Mapping

from agent.services.definition import Service


def cycle(services: Mapping[str, Service]) -> list[str]:
    """The names along one circle of `after` and `requires`; empty where there is none."""
    done: set[str] = set()
    for start in services:
        path: list[str] = []
        found = _walk(start, services, path, done)
        if found:
            return found
    return []


def unknown(services: Mapping[str, Service]) -> dict[str, str]:
    """Service → a name that it follows and that is none."""
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
    """The services that require one, directly or by way of others."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        required = waiting.pop()
        for service in services.values():
            if required in service.requires and service.name not in found:
                found.add(service.name)
                waiting.append(service.name)
    return found


def _walk(name: str, services: Mapping[str, Service], path: list[str], done: set[str]) -> list[str]:
    if name in path:
        return path[path.index(name) :]
    if name in done or name not in services:
        return []
    path.append(name)
    for other in sorted(services[name].follows):
        found = _walk(other, services, path, done)
        if found:
            return found
    path.pop()
    done.add(name)
    return []
