"""The stand-in's platform: applies what the APIs ask for to records and machines."""

import asyncio
import os
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from deploy.api import ApiError
from deploy.edge import Edge, Streams
from deploy.local import shapes, store
from deploy.local.running import Running
from deploy.standin import MachineState

FOLLOWED = 20
"""Events kept for each machine, as many as the API shows."""


class World:
    """Apps, machines and edges of one platform. `keep` saves changes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = store.load(folder)
        self.running: dict[str, Running] = {}
        self.leases: dict[str, shapes.LeaseData] = {}
        self.builders_asked: list[str] = []
        """Paths of requests for a builder."""
        self._edges: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._later: set[asyncio.Task[None]] = set()

    @property
    def conditions(self) -> store.Conditions:
        """The platform's conditions."""
        return self.records.conditions

    def keep(self) -> None:
        """Save what changed."""
        store.save(self.folder, self.records)

    def app(self, name: str) -> store.App:
        """An app by its name. Raises `ApiError`."""
        found = self.records.apps.get(name)
        if found is None:
            raise ApiError(404, "app not found")
        return found

    def machine(self, app: str, identity: str) -> store.MachineRecord:
        """A machine of an app. Raises `ApiError`."""
        found = self.records.machines.get(identity)
        if found is None or found.app != app:
            raise ApiError(404, "machine not found")
        return found

    def machines(self, app: str) -> list[store.MachineRecord]:
        """The app's machines."""
        return [each for each in self.records.machines.values() if each.app == app]

    def volumes(self, app: str) -> list[store.Volume]:
        """The app's volumes."""
        return [each for each in self.records.volumes.values() if each.app == app]

    def host(self, name: str) -> store.Host:
        """A computer of the platform."""
        return next(each for each in self.conditions.hosts if each.name == name)

    def state(self, machine: store.MachineRecord) -> MachineState:
        """The state of a machine."""
        running = self.running.get(machine.id)
        return running.standin.state if running else MachineState(machine.state)

    def run(self, machine: store.MachineRecord) -> Running:
        """The runner of a machine on this computer, started or not. Raises `ApiError`."""
        found = self.running.get(machine.id)
        if found is None:

            def changed(state: MachineState, status: int | None) -> None:
                self._changed(machine, state, status)

            found = self.running[machine.id] = Running(self.folder, machine, changed)
            if machine.state == MachineState.CREATED.value:
                found.standin.state = MachineState.CREATED
        found.standin.pace = self.conditions.pace
        found.configure(machine)
        return found

    def reserve(self, host: store.Host, memory_mb: int) -> None:
        """Check that a host has room for a machine. Raises `ApiError`."""
        used = sum(
            each.read.guest.memory_mb
            for each in self.records.machines.values()
            if each.host == host.name
        )
        if host.status != "ok":
            raise ApiError(503, f"host {host.name} is unreachable")
        if used + memory_mb > host.free_mb:
            raise ApiError(
                422,
                "could not reserve resource for machine: insufficient memory available to "
                "fulfill request",
                "insufficient_capacity",
            )

    def place(self, region: str, memory_mb: int) -> store.Host:
        """The host for a new volume or machine. Raises `ApiError`."""
        hosts = [each for each in self.conditions.hosts if each.region == region]
        if not hosts:
            raise ApiError(422, f"invalid region '{region}'")
        for host in hosts:
            if host.status == "ok" and host.free_mb >= memory_mb:
                return host
        raise ApiError(
            422, f"no host in region {region} has {memory_mb} MB free", "insufficient_capacity"
        )

    def require_lease(self, machine: str, nonce: str) -> None:
        """Check that nobody else holds the lease of the machine. Raises `ApiError`."""
        lease = self.leases.get(machine)
        if lease and lease.expires_at > time.time() and lease.nonce != nonce:
            raise ApiError(409, f"machine is leased until {lease.expires_at}")

    def refresh_edges(self) -> None:
        """Listen exactly where apps have an address and a service."""
        wanted = {
            (address.address, port.port): app.name
            for app in self.records.apps.values()
            for address in app.addresses
            if address.type in ("v4", "v6")
            for machine in self.machines(app.name)
            for service in machine.read.services
            for port in service.ports
        }
        for place in [place for place in self._edges if place not in wanted]:
            self._edges.pop(place).cancel()
        for place, app in wanted.items():
            if place not in self._edges:
                self._edges[place] = asyncio.create_task(self._serve(app, *place))

    async def close(self) -> None:
        """Stop every machine."""
        for task in self._edges.values():
            task.cancel()
        await asyncio.gather(*self._edges.values(), return_exceptions=True)
        ending = [running.close() for running in self.running.values()]
        await asyncio.gather(*ending)
        self.running.clear()

    async def end(self, machine: store.MachineRecord) -> None:
        """Destroy a machine; its volume stays."""
        running = self.running.pop(machine.id, None)
        if running is not None:
            await running.close()
        self.records.machines.pop(machine.id, None)
        self.refresh_edges()

    def later(self, work: Coroutine[None, None, None]) -> None:
        """Run something that its request does not wait for."""
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _serve(self, app: str, address: str, port: int) -> None:
        async def connect(client: str) -> Streams:
            return await self._connect(app, port, client)

        try:
            await Edge(connect).serve(address, port)
        except OSError as error:
            print(f"{app}: cannot listen on {address} port {port}: {error.strerror}", flush=True)

    async def _connect(self, app: str, port: int, client: str) -> Streams:
        """Connect to one of the app's machines, preferably an awake one."""
        able = [
            machine
            for machine in self.machines(app)
            if any(p.port == port for s in machine.read.services for p in s.ports)
        ]
        able.sort(key=lambda machine: self.state(machine) is not MachineState.STARTED)
        for machine in able:
            autostart = all(service.autostart for service in machine.read.services)
            if self.state(machine) is MachineState.STARTED or autostart:
                return await self.run(machine).standin.connect(client)
        raise ConnectionRefusedError("no machine takes this connection")

    def _changed(
        self, machine: store.MachineRecord, state: MachineState, status: int | None
    ) -> None:
        kinds = {
            MachineState.STARTED: ("start", "flyd"),
            MachineState.STOPPED: ("exit", "flyd"),
            MachineState.SUSPENDED: ("suspend", "flyd"),
            MachineState.STOPPING: ("stop", "user"),
        }
        if state in kinds:
            kind, source = kinds[state]
            code = status if kind == "exit" else None
            self.note(machine, kind, state.value, source, code)
        # A restart of the stand-in ends all processes: save the state without one.
        machine.state = (
            MachineState.STOPPED.value if state is not MachineState.CREATED else state.value
        )
        self.keep()

    def note(
        self,
        machine: store.MachineRecord,
        kind: str,
        state: str,
        source: str,
        code: int | None = None,
    ) -> None:
        """Record an event of a machine, newest first."""
        event = store.Event(kind, state, source, int(time.time() * 1000), code)
        machine.events = [event, *machine.events][:FOLLOWED]


def now() -> str:
    """The time, as the API writes it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def identity(prefix: str) -> str:
    """A new ID."""
    return f"{prefix}{os.urandom(7).hex()}"


def merged(config: bytes, metadata: dict[str, str]) -> msgspec.Raw:
    """A machine's configuration with other metadata."""
    whole = msgspec.json.decode(config, type=dict[str, msgspec.Raw])
    whole["metadata"] = msgspec.Raw(msgspec.json.encode(metadata))
    return msgspec.Raw(msgspec.json.encode(whole))
