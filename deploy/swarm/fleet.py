"""All machines at once, for `swarm list` and `swarm status --all`.

Starting flyctl once for each machine takes a hundred times as long as the API does. So flyctl is
asked once for its token, which is kept in memory only, and the Machines API is asked directly. If
that fails, flyctl asks again: it retries, and its errors are explained.
"""

import http.client
import os
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from deploy.swarm import many, status
from deploy.swarm.fly import EXEC_LIMIT, Fly, find_program, local_environ
from deploy.swarm.flyerrors import FlyError
from deploy.swarm.place import Place
from deploy.swarm.records import Executed, ListedMachine, chosen
from deploy.swarm.show import Show
from deploy.swarm.status import Report, Row

API = "https://api.machines.dev"
BASE_VARIABLE = "FLY_FLAPS_BASE_URL"
WORTH_IT = 4
"""From this many machines on, the API is asked directly."""

_PATIENCE = 30
_TROUBLE = (OSError, http.client.HTTPException, msgspec.DecodeError)

T = TypeVar("T")


class _Token(msgspec.Struct, frozen=True):
    token: str


class _ExecOrder(msgspec.Struct, frozen=True):
    cmd: str
    timeout: int


class Api:
    """The Machines API, with one connection for each thread."""

    def __init__(self, base: str, token: str) -> None:
        self._place = urllib.parse.urlsplit(base)
        bare = token.rpartition(" ")[2]  # it may be stored with its scheme
        scheme = "FlyV1" if bare.startswith(("fm1", "fm2")) else "Bearer"
        self.headers = {"Authorization": f"{scheme} {bare}", "Content-Type": "application/json"}
        self._mine = threading.local()

    def machines(self, app: str) -> list[ListedMachine]:
        """The app's machines. Raises `OSError`, `HTTPException`, `DecodeError`."""
        return self._ask("GET", f"/v1/apps/{app}/machines", None, list[ListedMachine])

    def execute(self, app: str, machine: str, command: str, limit: int) -> Executed:
        """Run a command in a machine. Raises as `machines` does."""
        path = f"/v1/apps/{app}/machines/{machine}/exec"
        return self._ask("POST", path, _ExecOrder(command, limit), Executed)

    def _ask(self, method: str, path: str, body: object, shape: type[T]) -> T:
        sent = None if body is None else msgspec.json.encode(body)
        connection = self._connection()
        try:
            connection.request(method, path, sent, self.headers)
            answer = connection.getresponse()
            content = answer.read()
        except _TROUBLE:
            connection.close()  # the next request opens it again
            raise
        if answer.status != 200:
            raise OSError(f"status {answer.status}")
        return msgspec.json.decode(content, type=shape)

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        if found is None:
            secure = self._place.scheme == "https"
            kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
            found = kind(self._place.hostname or "", self._place.port, timeout=_PATIENCE)
            self._mine.connection = found
        return found


class _Direct(Fly):
    """Asks the API directly, and flyctl if the API gives no usable answer."""

    api: Api | None = None

    def machines(self, app: str) -> list[ListedMachine]:
        """The app's machines, except console and release machines. Raises `FlyError`."""
        if self.api is not None:
            try:
                return chosen(self.api.machines(app))
            except _TROUBLE:
                pass  # flyctl asks again and explains
        return super().machines(app)

    def inside(
        self, app: str, machine: ListedMachine, command: str, limit: int = EXEC_LIMIT
    ) -> Executed:
        """Run a command as root in the started machine. Raises `FlyError`."""
        if self.api is not None:
            try:
                return self.api.execute(app, machine.id, command, limit)
            except _TROUBLE:
                pass  # only reading commands run here, which may run twice
        return super().inside(app, machine, command, limit)


class Fleet:
    """Several machines of this laptop, queried together."""

    def __init__(self, names: Sequence[str]) -> None:
        self._local = {name: Place(name).state().local for name in names}
        self._flies: dict[bool, Fly] = {}
        for local in sorted(set(self._local.values())):
            environ = local_environ() if local else {}
            fly = _Direct(find_program(local), Show(quiet=True), environ=environ)
            fly.api = _direct(fly) if len(names) >= WORTH_IT else None
            self._flies[local] = fly

    def look(
        self, work: Callable[[Place, Fly, ListedMachine | None], str]
    ) -> Iterator[many.Result]:
        """Call `work` with what the platform says about each machine; results as they are ready."""

        def one(name: str) -> str:
            fly = self._flies[self._local[name]]
            return work(Place(name), fly, fly.machine(name))

        yield from many.as_done(list(self._local), one)


def _direct(fly: Fly) -> Api | None:
    environ = {**os.environ, **fly.environ}
    try:
        # The variable that flyctl itself reads first.
        token = environ.get("FLY_ACCESS_TOKEN") or environ.get("FLY_API_TOKEN") or ""
        token = token or fly.ask(_Token, "auth", "token").token
    except FlyError:
        return None
    return Api(environ.get(BASE_VARIABLE, API), token) if token else None


def rows(names: Sequence[str]) -> list[Row]:
    """A row for each machine; one that cannot be asked has the state `?`."""
    return _gathered(names, lambda where, _, machine: status.row(where, machine), lambda row: row)


def reports(names: Sequence[str]) -> list[Report]:
    """The same with the report of each machine's agent."""
    return _gathered(names, status.report, lambda row: Report(row, msgspec.Raw(b"null"), []))


def _gathered(
    names: Sequence[str],
    make: Callable[[Place, Fly, ListedMachine | None], T],
    failed: Callable[[Row], T],
) -> list[T]:
    found: dict[str, T] = {}

    def look(where: Place, fly: Fly, machine: ListedMachine | None) -> str:
        found[where.name] = make(where, fly, machine)
        return ""

    for result in Fleet(names).look(look):
        if result.problem:
            first = result.problem.partition("\n")[0]
            found[result.name] = failed(Row(result.name, "?", problem=first))
    return [found[name] for name in names]
