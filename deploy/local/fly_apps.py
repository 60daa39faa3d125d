"""flyctl's commands about the account, apps, addresses and regions."""

import sys
from collections.abc import Callable

import msgspec

from deploy.local import shapes
from deploy.local.client import Client, FlyError
from deploy.local.surface import Call

VERSION = "0.4.0"


class _Viewer(msgspec.Struct, frozen=True):
    email: str


class _Who(msgspec.Struct, frozen=True):
    viewer: _Viewer


class _Organization(msgspec.Struct, frozen=True):
    slug: str
    name: str
    type: str


class _Organizations(msgspec.Struct, frozen=True):
    nodes: list[_Organization]


class _Orgs(msgspec.Struct, frozen=True):
    organizations: _Organizations


class _App(msgspec.Struct, frozen=True):
    id: str
    name: str
    status: str
    deployed: bool


class _Apps(msgspec.Struct, frozen=True):
    nodes: list[_App]


class _AllApps(msgspec.Struct, frozen=True):
    apps: _Apps


class _Address(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    address: str
    type: str
    region: str
    created_at: str


class _Addresses(msgspec.Struct, frozen=True):
    nodes: list[_Address]


class _AppAddresses(msgspec.Struct, frozen=True, rename="camel"):
    ip_addresses: _Addresses
    shared_ip_address: str | None = None


class _OfApp(msgspec.Struct, frozen=True):
    app: _AppAddresses


class _Allocation(msgspec.Struct, frozen=True, rename="camel"):
    ip_address: _Address


class _Allocated(msgspec.Struct, frozen=True, rename="camel"):
    allocate_ip_address: _Allocation


class _Region(msgspec.Struct, frozen=True):
    name: str
    code: str


class _Regions(msgspec.Struct, frozen=True):
    regions: list[_Region]


class _Platform(msgspec.Struct, frozen=True):
    platform: _Regions


def say(value: object) -> None:
    """JSON as flyctl prints it."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=4)
    print(text.decode() if value != [] else "[]")


def require_yes(call: Call) -> None:
    """Fail as flyctl does where it would ask and nobody can answer. Raises `FlyError`."""
    if "--yes" not in call.flags:
        raise FlyError("yes flag must be specified when not running interactively")


def regions(client: Client) -> list[str]:
    """The platform's regions."""
    query = "query { platform { regions { name code } } }"
    return [each.code for each in client.graph(_Platform, query).platform.regions]


def require_app(client: Client, app: str) -> None:
    """Check that the app exists, as flyctl does first. Raises `FlyError`."""
    query = "query($appName: String!) { app(name: $appName) { id } }"
    client.graph(msgspec.Raw, query, appName=app)


def _version(call: Call) -> None:
    if "--json" in call.flags:
        say({"Name": "flyctl", "Version": VERSION})
    else:
        print(f"flyctl v{VERSION}")


def _whoami(call: Call) -> None:
    query = "query { viewer { ... on User { email } ... on Macaroon { email } } }"
    email = Client().graph(_Who, query).viewer.email
    if "--json" in call.flags:
        say({"email": email})
    else:
        print(email)


def _organization(client: Client, wanted: str) -> str:
    query = "query { organizations(admin: false) { nodes { slug name type } } }"
    found = client.graph(_Orgs, query).organizations.nodes
    if wanted:
        if wanted not in [each.slug for each in found]:
            raise FlyError(f"organization {wanted} not found")
        return wanted
    if len(found) == 1 and found[0].type == "PERSONAL":
        words = f"automatically selected personal organization: {found[0].name}"
        print(words, file=sys.stderr)
        return found[0].slug
    raise FlyError("org slug must be specified when not running interactively")


def _orgs_list(_: Call) -> None:
    query = "query { organizations(admin: false) { nodes { slug name type } } }"
    found = Client().graph(_Orgs, query).organizations.nodes
    say({each.slug: each.name for each in found})


def _apps_list(_: Call) -> None:
    query = "query { apps(first: 200) { nodes { id name status deployed } } }"
    found = Client().graph(_AllApps, query).apps.nodes
    say(
        [
            {"ID": each.id, "Name": each.name, "Status": each.status, "Deployed": each.deployed}
            for each in found
        ]
    )


def _apps_create(call: Call) -> None:
    name = call.flags.get("--name") or (call.words[0] if call.words else "")
    client = Client()
    organization = _organization(client, call.flags.get("--org", ""))
    wanted = shapes.CreateApp(name, organization)
    app = client.rest(shapes.AppInfo, "POST", "/apps?wait=true", wanted)
    if "--json" in call.flags:
        say({"ID": app.id, "Name": app.name, "Status": app.status})
    else:
        print(f"New app created: {app.name}")


def _apps_destroy(call: Call) -> None:
    client = Client()
    for name in call.words:
        require_yes(call)
        require_app(client, name)
        client.rest(msgspec.Raw, "DELETE", f"/apps/{name}")
        print(f"Destroyed app {name}")


def _ips_list(call: Call) -> None:
    query = """query($appName: String!) { app(name: $appName) {
        ipAddresses { nodes { id address type region createdAt } } sharedIpAddress } }"""
    found = Client().graph(_OfApp, query, appName=call.app).app
    listed = [
        {
            "ID": each.id,
            "Address": each.address,
            "Type": each.type,
            "Region": each.region,
            "CreatedAt": each.created_at,
        }
        for each in found.ip_addresses.nodes
    ]
    if found.shared_ip_address:
        listed.append({"ID": "", "Address": found.shared_ip_address, "Type": "shared_v4"})
    say(listed)


def _allocate(kind: str) -> Callable[[Call], None]:
    def run(call: Call) -> None:
        wanted = "shared_v4" if "--shared" in call.flags else kind
        if wanted == "v4":
            require_yes(call)
        query = """mutation($input: AllocateIPAddressInput!) {
            allocateIpAddress(input: $input) { ipAddress { id address type region createdAt } } }"""
        order = {"appId": call.app, "type": wanted}
        made = Client().graph(_Allocated, query, input=order).allocate_ip_address.ip_address
        print(f"VERSION\tIP\tTYPE\tREGION\n{made.type}\t{made.address}\tpublic\t{made.region}")

    return run


def _regions(call: Call) -> None:
    found = regions(Client())
    if "--json" in call.flags:
        say([{"code": each, "name": each.upper()} for each in found])
    else:
        print("\n".join(found))


def _token(call: Call) -> None:
    client = Client()
    client.require_session()
    if "--json" in call.flags:
        say({"token": client.token})
    else:
        print(client.token)


COMMANDS: dict[str, Callable[[Call], None]] = {
    "fly version": _version,
    "fly auth whoami": _whoami,
    "fly auth token": _token,
    "fly orgs list": _orgs_list,
    "fly apps list": _apps_list,
    "fly apps create": _apps_create,
    "fly apps destroy": _apps_destroy,
    "fly ips list": _ips_list,
    "fly ips allocate-v4": _allocate("v4"),
    "fly ips allocate-v6": _allocate("v6"),
    "fly platform regions": _regions,
}
