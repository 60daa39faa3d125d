"""All machines at once, for `swarm list` and `swarm status --all`.

One flyctl a machine would take a hundred times longer than the API itself. So flyctl is asked once
for the token that it would use, which is held in memory only, and the Machines API is asked
directly; whatever goes wrong there is left to flyctl, which has the words for it.
"""

import http.client
import os
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Sequence

import msgspec

from deploy.swarm import many, status
from deploy.swarm.fly import Fly, FlyError, find_program, local_environ
from deploy.swarm.place import Place
from deploy.swarm.records import Machine, chosen
from deploy.swarm.show import Show
from deploy.swarm.status import Row

API = "https://api.machines.dev"
BASE_VARIABLE = "FLY_FLAPS_BASE_URL"
WORTH_IT = 4
"""Machines from which on the API is asked directly."""

_PATIENCE = 30


class _Token(msgspec.Struct, frozen=True):
    token: str


class _Api:
    """The Machines API with one connection a thread."""

    def __init__(self, base: str, token: str) -> None:
        self._place = urllib.parse.urlsplit(base)
        scheme = "FlyV1" if token.startswith(("fm1", "fm2")) else "Bearer"
        self._headers = {"Authorization": f"{scheme} {token}"}
        self._mine = threading.local()

    def machines(self, app: str) -> list[Machine]:
        """The app's machines. Raises `OSError`, `HTTPException`, `DecodeError`."""
        connection = self._connection()
        connection.request("GET", f"/v1/apps/{app}/machines", headers=self._headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise OSError(f"status {answer.status}")
        return msgspec.json.decode(content, type=list[Machine])

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        if found is None:
            secure = self._place.scheme == "https"
            kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
            found = kind(self._place.hostname or "", self._place.port, timeout=_PATIENCE)
            self._mine.connection = found
        return found


class Fleet:
    """Several machines of this laptop, looked at together."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._apis: dict[bool, _Api | None] = {}
        self._environs: dict[bool, dict[str, str]] = {}
        for local in sorted({Place(name).state().local for name in names}):
            self._environs[local] = local_environ() if local else {}
            self._apis[local] = self._direct(local) if len(names) >= WORTH_IT else None

    def fly(self, local: bool) -> Fly:
        """A flyctl for machines on this computer, or at Fly."""
        return Fly(find_program(local), Show(quiet=True), environ=self._environs[local])

    def look(self, work: Callable[[Place, Fly, Machine | None], str]) -> Iterator[many.Result]:
        """Do it for each machine with what the platform says of it, as they are ready."""

        def one(name: str) -> str:
            where = Place(name)
            local = where.state().local
            fly = self.fly(local)
            return work(where, fly, self._machine(name, local, fly))

        yield from many.as_done(self._names, one)

    def _machine(self, name: str, local: bool, fly: Fly) -> Machine | None:
        api = self._apis[local]
        if api is not None:
            try:
                found = chosen(api.machines(name))
            except (OSError, http.client.HTTPException, msgspec.DecodeError):
                return fly.machine(name)
            return found[0] if found else None
        return fly.machine(name)

    def _direct(self, local: bool) -> _Api | None:
        environ = {**os.environ, **self._environs[local]}
        try:
            # As flyctl takes it, where it needs no login.
            token = environ.get("FLY_ACCESS_TOKEN") or environ.get("FLY_API_TOKEN") or ""
            token = token or self.fly(local).ask(_Token, "auth", "token").token
        except FlyError:
            return None
        return _Api(environ.get(BASE_VARIABLE, API), token) if token else None


def rows(names: Sequence[str]) -> list[Row]:
    """A row for each machine; one that cannot be asked has the state `?`."""
    found: dict[str, Row] = {}

    def look(where: Place, _: Fly, machine: Machine | None) -> str:
        found[where.name] = status.row(where, machine)
        return ""

    for result in Fleet(names).look(look):
        if result.problem:
            first = result.problem.partition("\n")[0]
            found[result.name] = Row(result.name, "?", problem=first)
    return [found[name] for name in names]
