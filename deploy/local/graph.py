"""The GraphQL that flyctl asks of api.fly.io, answered by a schema of what `swarm` uses.

Names and shapes are the platform's (schema.graphql of fly-go). A field that is not here is an error
of the query, so what a flyctl asks beyond it is seen.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import graphql
from aiohttp import web

from deploy.api import ApiError
from deploy.local import rest_apps, store
from deploy.local.web import WORLD
from deploy.local.world import World

_SCHEMA = graphql.build_schema(Path(__file__).with_name("schema.graphql").read_text())


@dataclass(frozen=True)
class _Node:
    """An object of an answer: its fields by name. GraphQL asks for some of them."""

    kind: str
    fields: "dict[str, Any]" = field(default_factory=dict)


def add_routes(router: web.UrlDispatcher) -> None:
    """Serve it."""
    router.add_post("/graphql", _serve)


async def _serve(request: web.Request) -> web.Response:
    asked = await request.json()
    result = await graphql.graphql(
        _SCHEMA,
        asked["query"],
        root_value=_Root(request.app[WORLD]),
        variable_values=asked.get("variables") or {},
        operation_name=asked.get("operationName") or None,
        field_resolver=_resolve,
        type_resolver=lambda value, *_: value.kind,
    )
    said: dict[str, object] = {"data": result.data}
    if result.errors:
        said["errors"] = [
            {"message": each.message, "extensions": each.extensions or {}} for each in result.errors
        ]
    return web.json_response(said)


def _resolve(source: Any, info: graphql.GraphQLResolveInfo[Any], **arguments: Any) -> Any:
    if isinstance(source, _Node):
        value = source.fields.get(info.field_name)
        return value(**arguments) if callable(value) else value
    return getattr(source, f"ask_{info.field_name}")(**arguments)


class _Root:
    """The queries and mutations."""

    def __init__(self, place: World) -> None:
        self._place = place

    def ask_viewer(self) -> _Node:
        email = self._place.conditions.account
        return _Node("User", {"id": "user1", "email": email, "enablePaidHobby": True})

    def ask_organizations(self, admin: bool | None = None) -> _Node:
        del admin
        nodes = [_organization(each) for each in self._place.conditions.organizations]
        return _Node("Organizations", {"nodes": nodes})

    def ask_organization(self, slug: str) -> _Node:
        for each in self._place.conditions.organizations:
            if each.slug == slug:
                return _organization(each)
        raise _not_found("Could not find Organization")

    def ask_platform(self) -> _Node:
        codes = sorted({host.region for host in self._place.conditions.hosts})
        regions = [
            _Node(
                "Region",
                {
                    "name": code.upper(),
                    "code": code,
                    "latitude": 0.0,
                    "longitude": 0.0,
                    "gatewayAvailable": True,
                    "requiresPaidPlan": False,
                    "deprecated": False,
                },
            )
            for code in codes
        ]
        nearest = codes[0] if codes else None
        return _Node("PlatformRegions", {"requestRegion": nearest, "regions": regions})

    def ask_apps(self, **_: object) -> _Node:
        nodes = [self._app(app) for app in self._place.records.apps.values()]
        page = _Node("PageInfo", {"hasNextPage": False})
        return _Node("Apps", {"pageInfo": page, "nodes": nodes})

    def ask_app(self, name: str) -> _Node:
        app = self._place.records.apps.get(name)
        if app is None:
            raise _not_found("Could not find App")
        return self._app(app)

    def ask_volume(self, id: str) -> _Node:
        volume = self._place.records.volumes.get(id)
        if volume is None:
            raise _not_found("Could not find Volume")
        return _Node("Volume", {"id": id, "app": _Node("App", {"name": volume.app})})

    def ask_machine(self, machineId: str) -> _Node:
        machine = self._place.records.machines.get(machineId)
        if machine is None:
            raise _not_found("Could not find Machine")
        return self._machine(machine)

    def ask_appNameAvailable(self, name: str) -> bool:
        return name not in self._place.records.apps and name not in self._place.conditions.taken

    def ask_allocateIpAddress(self, input: dict[str, str]) -> _Node:
        app = self._place.records.apps.get(input["appId"])
        if app is None:
            raise _not_found("Could not find App")
        try:
            address = rest_apps.allocate(self._place, app, input["type"])
        except ApiError as error:
            raise graphql.GraphQLError(error.words) from error
        said = {"app": self._app(app), "ipAddress": _address(address)}
        return _Node("AllocateIPAddressPayload", said)

    def _app(self, app: store.App) -> _Node:
        info = rest_apps.app_info(self._place, app)
        organization = next(
            each for each in self._place.conditions.organizations if each.slug == app.org
        )
        shared = [each.address for each in app.addresses if each.type == "shared_v4"]
        own = [_address(each) for each in app.addresses if each.type != "shared_v4"]
        release = _release(app.releases[-1]) if app.releases else None
        machines = self._place.machines(app.name)

        def image(ref: str) -> _Node | None:
            known = self._place.conditions.images
            if known and ref not in known:
                raise graphql.GraphQLError(f"failed to get manifest {ref}: not found")
            said = {"id": "img1", "digest": "sha256:0", "ref": ref, "compressedSizeFull": "1000000"}
            return _Node("Image", said)

        return _Node(
            "App",
            {
                "id": app.name,
                "internalNumericId": app.id,
                "name": app.name,
                "hostname": f"{app.name}.fly.dev",
                "deployed": info.status == "deployed",
                "status": info.status,
                "version": len(app.releases),
                "appUrl": f"https://{app.name}.fly.dev",
                "platformVersion": "machines",
                "network": "",
                "cnameTarget": "",
                "currentRelease": release,
                "currentReleaseUnprocessed": release,
                "config": _Node("AppConfig", {"definition": {}}),
                "organization": _organization(organization),
                "services": [],
                "ipAddresses": _Node("IPAddresses", {"nodes": own}),
                "egressIpAddresses": _Node("EgressIPAddresses", {"nodes": []}),
                "sharedIpAddress": shared[0] if shared else None,
                "machines": _Node("Machines", {"nodes": [self._machine(m) for m in machines]}),
                "image": image,
            },
        )

    def _machine(self, machine: store.Machine) -> _Node:
        return _Node(
            "GqlMachine",
            {
                "id": machine.id,
                "name": machine.name,
                "config": {},
                "state": self._place.state(machine).value,
                "region": machine.region,
                "createdAt": machine.created_at,
                "app": _Node("App", {"name": machine.app}),
                "ips": _Node("MachineIPs", {"nodes": []}),
                "host": _Node("Host", {"id": machine.host}),
            },
        )


def _organization(each: store.Organization) -> _Node:
    return _Node(
        "Organization",
        {
            "id": f"org-{each.slug}",
            "internalNumericId": "1",
            "slug": each.slug,
            "rawSlug": each.slug,
            "name": each.name,
            "type": each.type,
            "paidPlan": True,
            "billable": True,
            "viewerRole": "admin",
            "addOns": lambda **_: _Node("AddOns", {"nodes": []}),
        },
    )


def _address(each: store.Address) -> _Node:
    return _Node(
        "IPAddress",
        {
            "id": each.id,
            "address": each.address,
            "type": each.type,
            "region": "global",
            "createdAt": each.created_at,
            "serviceName": "",
        },
    )


def _release(release: store.Release) -> _Node:
    return _Node(
        "Release",
        {
            "id": release.id,
            "version": release.version,
            "status": release.status,
            "inProgress": release.status == "running",
            "imageRef": release.image_ref,
            "createdAt": release.created_at,
            # flyctl reads the machines where a release has none.
            "configDefinition": None,
        },
    )


def _not_found(words: str) -> graphql.GraphQLError:
    return graphql.GraphQLError(words, extensions={"code": "NOT_FOUND"})
