"""Answers of the GraphQL API: one class for each type of schema.graphql.

A field's name is the schema's in snake case. A method is a field with arguments.
"""

from collections.abc import Sequence

import msgspec
from graphql import GraphQLError

from deploy.local import store


class Nodes(msgspec.Struct, frozen=True):
    """A list, as GraphQL APIs write it."""

    nodes: Sequence[object] = ()


class PageInfo(msgspec.Struct, frozen=True):
    """There is one page."""

    has_next_page: bool = False
    end_cursor: str | None = None


class Page(msgspec.Struct, frozen=True):
    """A list in pages."""

    nodes: Sequence[object]
    page_info: PageInfo = PageInfo()


class User(msgspec.Struct, frozen=True):
    """The owner of the token."""

    email: str
    id: str = "user1"
    enable_paid_hobby: bool = True


class Organization(msgspec.Struct, frozen=True):
    """An organisation."""

    id: str
    slug: str
    raw_slug: str
    name: str
    type: str
    internal_numeric_id: str = "1"
    paid_plan: bool = True
    billable: bool = True
    viewer_role: str = "admin"

    def add_ons(self, type: str | None = None) -> Nodes:
        """There are none."""
        del type
        return Nodes()


class Region(msgspec.Struct, frozen=True):
    """A region of the platform."""

    name: str
    code: str
    latitude: float = 0.0
    longitude: float = 0.0
    gateway_available: bool = True
    requires_paid_plan: bool = False
    deprecated: bool = False


class PlatformRegions(msgspec.Struct, frozen=True):
    """All regions, and the nearest."""

    request_region: str | None
    regions: list[Region]


class Named(msgspec.Struct, frozen=True):
    """An app, by its name."""

    name: str


class Volume(msgspec.Struct, frozen=True):
    """A volume and its app."""

    id: str
    app: Named


class Address(msgspec.Struct, frozen=True):
    """A public address."""

    id: str
    address: str
    type: str
    created_at: str
    region: str = "global"
    service_name: str = ""
    network: None = None


class Release(msgspec.Struct, frozen=True):
    """One deploy."""

    id: str
    version: int
    status: str
    in_progress: bool
    image_ref: str
    created_at: str
    evaluation_id: str = ""
    config_definition: None = None
    """flyctl reads the machines if a release has none."""


class Host(msgspec.Struct, frozen=True):
    """A computer of the platform."""

    id: str


class MachineNode(msgspec.Struct, frozen=True):
    """A machine."""

    id: str
    name: str
    state: str
    region: str
    created_at: str
    app: Named
    host: Host
    config: dict[str, str] = {}
    ips: Nodes = Nodes()


class Image(msgspec.Struct, frozen=True):
    """An image in the registry."""

    ref: str
    id: str = "img1"
    digest: str = "sha256:0"
    compressed_size_full: str = "1000000"
    manifest: None = None


class AppConfig(msgspec.Struct, frozen=True):
    """The configuration of the last deploy; flyctl reads it from the machines instead."""

    definition: dict[str, str] = {}


class App(msgspec.Struct, frozen=True):
    """An app. `registry` lists the images that exist; empty: any."""

    id: str
    internal_numeric_id: int
    name: str
    hostname: str
    deployed: bool
    status: str
    version: int
    app_url: str
    current_release: Release | None
    current_release_unprocessed: Release | None
    organization: Organization
    ip_addresses: Nodes
    shared_ip_address: str | None
    machines: Nodes
    registry: Sequence[str]
    platform_version: str = "machines"
    network: str = ""
    cname_target: str = ""
    config: AppConfig = AppConfig()
    services: Sequence[object] = ()
    egress_ip_addresses: Nodes = Nodes()
    image_details: None = None
    role: None = None

    def image(self, ref: str) -> Image:
        """Resolve the image of a deploy. Raises `GraphQLError`."""
        if self.registry and ref not in self.registry:
            raise GraphQLError(f"failed to get manifest {ref}: not found")
        return Image(ref)


class Allocated(msgspec.Struct, frozen=True):
    """A new address and its app."""

    app: App
    ip_address: Address


def organization(each: store.Organization) -> Organization:
    """An organisation."""
    return Organization(f"org-{each.slug}", each.slug, each.slug, each.name, each.type)


def address(each: store.Address) -> Address:
    """An address."""
    return Address(each.id, each.address, each.type, each.created_at)


def release(each: store.Release) -> Release:
    """A deploy."""
    running = each.status == "running"
    return Release(each.id, each.version, each.status, running, each.image_ref, each.created_at)
