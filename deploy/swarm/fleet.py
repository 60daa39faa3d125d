"""All machines at once, for `swarm list`."""

from collections.abc import Sequence

from deploy.swarm import many, status
from deploy.swarm.fly import Fly, find_program, local_environ
from deploy.swarm.place import Place
from deploy.swarm.records import Machine
from deploy.swarm.show import Show
from deploy.swarm.status import Row


def rows(names: Sequence[str]) -> list[Row]:
    """A row for each machine; one that cannot be asked has the state `?`."""
    found: dict[str, Row] = {}

    def look(name: str) -> str:
        where = Place(name)
        local = where.state().local
        fly = Fly(find_program(local), Show(), environ=local_environ() if local else {})
        machine: Machine | None = fly.machine(name)
        found[name] = status.row(where, machine)
        return ""

    for result in many.each(names, look):
        if result.problem:
            first = result.problem.partition("\n")[0]
            found[result.name] = Row(result.name, "?", problem=first)
    return [found[name] for name in names]
