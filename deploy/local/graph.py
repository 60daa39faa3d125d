"""Answers flyctl's GraphQL queries to api.fly.io, with the part of the schema that `swarm` uses.

Names and shapes are the platform's (schema.graphql of fly-go). A missing field makes the query
fail, so we notice when a flyctl asks for more.
"""

import re
from pathlib import Path
from typing import Any, TypeVar

import graphql
from aiohttp import web

from deploy.api import ApiError
from deploy.local import nodes, rest_apps, store
from deploy.local.web import WORLD
from deploy.local.world import World

T = TypeVar("T")
_SCHEMA = graphql.build_schema(Path(__file__).with_name("schema.graphql").read_text())


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
        # The only union is the type of the viewer.
        type_resolver=lambda *_: nodes.User.__name__,
    )
    said: dict[str, object] = {"data": result.data}
    if result.errors:
        said["errors"] = [
            {"message": each.message, "extensions": each.extensions or {}} for each in result.errors
        ]
    return web.json_response(said)


def _resolve(source: object, info: "graphql.GraphQLResolveInfo[Any]", **given: object) -> object:
    """A field's value: an attribute, or what a method answers."""
    value = getattr(source, _snake(info.field_name))
    return (
        value(**{_snake(name): each for name, each in given.items()}) if callable(value) else value
    )


def _snake(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


class _Root:
    """The queries and mutations, by their names."""

    def __init__(self, place: World) -> None:
        self._place = place

    def viewer(self) -> nodes.User:
        return nodes.User(self._place.conditions.account)

    def organizations(self, admin: bool | None = None) -> nodes.Nodes:
        del admin
        return nodes.Nodes([nodes.organization(e) for e in self._place.conditions.organizations])

    def organization(self, slug: str) -> nodes.Organization:
        for each in self._place.conditions.organizations:
            if each.slug == slug:
                return nodes.organization(each)
        raise _not_found("Organization")

    def platform(self) -> nodes.PlatformRegions:
        codes = sorted({host.region for host in self._place.conditions.hosts})
        regions = [nodes.Region(code.upper(), code) for code in codes]
        return nodes.PlatformRegions(codes[0] if codes else None, regions)

    def apps(self, **_: object) -> nodes.Page:
        return nodes.Page([self._app(each) for each in self._place.records.apps.values()])

    def app(self, name: str) -> nodes.App:
        return self._app(_known(self._place.records.apps, name, "App"))

    def volume(self, id: str) -> nodes.Volume:
        volume = _known(self._place.records.volumes, id, "Volume")
        return nodes.Volume(id, nodes.Named(volume.app))

    def machine(self, machine_id: str) -> nodes.MachineNode:
        return self._machine(_known(self._place.records.machines, machine_id, "Machine"))

    def app_name_available(self, name: str) -> bool:
        return name not in self._place.records.apps and name not in self._place.conditions.taken

    def allocate_ip_address(self, input: dict[str, str]) -> nodes.Allocated:
        app = _known(self._place.records.apps, input["appId"], "App")
        try:
            address = rest_apps.allocate(self._place, app, input["type"])
        except ApiError as error:
            raise graphql.GraphQLError(error.words) from error
        return nodes.Allocated(self._app(app), nodes.address(address))

    def _app(self, app: store.App) -> nodes.App:
        conditions = self._place.conditions
        status = rest_apps.app_info(self._place, app).status
        shared = [each.address for each in app.addresses if each.type == "shared_v4"]
        own = [nodes.address(each) for each in app.addresses if each.type != "shared_v4"]
        last = nodes.release(app.releases[-1]) if app.releases else None
        return nodes.App(
            id=app.name,
            internal_numeric_id=app.id,
            name=app.name,
            hostname=f"{app.name}.fly.dev",
            deployed=status == "deployed",
            status=status,
            version=len(app.releases),
            app_url=f"https://{app.name}.fly.dev",
            current_release=last,
            current_release_unprocessed=last,
            organization=nodes.organization(
                next(each for each in conditions.organizations if each.slug == app.org)
            ),
            ip_addresses=nodes.Nodes(own),
            shared_ip_address=shared[0] if shared else None,
            machines=nodes.Nodes([self._machine(each) for each in self._place.machines(app.name)]),
            registry=conditions.images,
        )

    def _machine(self, machine: store.MachineRecord) -> nodes.MachineNode:
        return nodes.MachineNode(
            id=machine.id,
            name=machine.name,
            state=self._place.state(machine).value,
            region=machine.region,
            created_at=machine.created_at,
            app=nodes.Named(machine.app),
            host=nodes.Host(machine.host),
        )


def _known(records: dict[str, T], name: str, kind: str) -> T:
    found = records.get(name)
    if found is None:
        raise _not_found(kind)
    return found


def _not_found(kind: str) -> graphql.GraphQLError:
    return graphql.GraphQLError(f"Could not find {kind}", extensions={"code": "NOT_FOUND"})
