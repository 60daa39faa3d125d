"""Bodies of the REST APIs' requests and answers, with the platform's names (fly-go's JSON tags)."""

import msgspec


class OrgInfo(msgspec.Struct, frozen=True):
    """An organisation, as an app refers to it."""

    name: str
    slug: str
    internal_numeric_id: int = 1


class AppInfo(msgspec.Struct, frozen=True):
    """An app."""

    id: str
    name: str
    internal_numeric_id: int
    network: str
    status: str
    machine_count: int
    volume_count: int
    organization: OrgInfo
    cname_target: str = ""
    app_role: str = ""


class CreateApp(msgspec.Struct, frozen=True):
    """The body that creates an app."""

    name: str
    org_slug: str
    network: str = ""


class VolumeInfo(msgspec.Struct, frozen=True):
    """A volume."""

    id: str
    name: str
    state: str
    size_gb: int
    region: str
    zone: str
    encrypted: bool
    attached_machine_id: str | None
    attached_alloc_id: str | None
    created_at: str
    snapshot_retention: int
    auto_backup_enabled: bool
    host_status: str
    host_dedication_id: str = ""


class Compute(msgspec.Struct, frozen=True):
    """The machine that a volume is meant for."""

    cpu_kind: str = "shared"
    cpus: int = 1
    memory_mb: int = 256


class CreateVolume(msgspec.Struct, frozen=True):
    """The body that creates a volume: new, from a snapshot, or as a fork."""

    name: str
    region: str = ""
    size_gb: int | None = None
    snapshot_retention: int | None = None
    auto_backup_enabled: bool | None = None
    snapshot_id: str | None = None
    source_volume_id: str | None = None
    compute: Compute | None = None


class UpdateVolume(msgspec.Struct, frozen=True):
    """The body that changes a volume."""

    snapshot_retention: int | None = None
    auto_backup_enabled: bool | None = None


class ExtendVolume(msgspec.Struct, frozen=True):
    """The body that makes a volume larger."""

    size_gb: int


class Extended(msgspec.Struct, frozen=True):
    """The larger volume."""

    volume: VolumeInfo
    needs_restart: bool


class SnapshotInfo(msgspec.Struct, frozen=True):
    """A snapshot of a volume; sizes in bytes."""

    id: str
    size: int
    volume_size: int
    digest: str
    created_at: str
    status: str
    retention_days: int | None = None


class ImageRef(msgspec.Struct, frozen=True):
    """The parts of an image reference."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""


class CheckStatus(msgspec.Struct, frozen=True):
    """The result of a health check."""

    name: str
    status: str
    output: str
    updated_at: str


class MachineInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A machine; without `config` if its host does not answer."""

    id: str
    name: str
    state: str
    region: str
    image_ref: ImageRef
    instance_id: str
    private_ip: str
    created_at: str
    updated_at: str
    host_status: str
    config: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    incomplete_config: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    events: list[msgspec.Raw] = []
    checks: list[CheckStatus] = []
    nonce: str = ""


class Launch(msgspec.Struct, frozen=True):
    """The body that creates or updates a machine."""

    config: msgspec.Raw
    region: str = ""
    name: str = ""
    skip_launch: bool = False
    lease_ttl: int = 0
    min_secrets_version: int | None = None


class LeaseData(msgspec.Struct, frozen=True):
    """Who may change a machine until when (Unix time)."""

    nonce: str
    expires_at: int
    owner: str = ""


class LeaseInfo(msgspec.Struct, frozen=True):
    """A lease."""

    status: str
    data: LeaseData


class ExecOrder(msgspec.Struct, frozen=True):
    """The body that runs a command in a machine."""

    cmd: str = ""
    stdin: str = ""
    timeout: int = 0


class ExecResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of a command."""

    exit_code: int = 0
    stdout: str = ""
    stderr: str = ""


class ListenSocket(msgspec.Struct, frozen=True):
    """Where a process listens."""

    proto: str
    address: str


class Process(msgspec.Struct, frozen=True):
    """A process of a machine."""

    pid: int
    command: str
    listen_sockets: list[ListenSocket]
    stime: int = 0
    rtime: int = 0
    cpu: int = 0
    rss: int = 0
    directory: str = "/"


class SecretInfo(msgspec.Struct, frozen=True):
    """A secret without its value."""

    name: str
    digest: str
    updated_at: str
    created_at: str


class UpdateSecrets(msgspec.Struct, frozen=True):
    """The body that sets secrets, and removes those whose value is null."""

    values: dict[str, str | None]


class Assigned(msgspec.Struct, frozen=True):
    """An address of an app."""

    ip: str
    region: str
    service_name: str
    shared: bool
    created_at: str


class OrgFull(msgspec.Struct, frozen=True):
    """An organisation, as api.fly.io describes it."""

    id: str
    internal_numeric_id: int
    slug: str
    raw_slug: str
    name: str
    personal: bool
    paid_plan: bool = True
    billing_status: str = "CURRENT"
    billable: bool = True
    provisions_beta_extensions: bool = False
    remote_builder_image: str = ""


class ReleaseInfo(msgspec.Struct, frozen=True):
    """One deploy."""

    id: str
    version: int
    status: str
    image_ref: str
    created_at: str
    stable: bool = True
    in_progress: bool = False
    strategy: str = "ROLLING"
    user: str = ""


class CreateRelease(msgspec.Struct, frozen=True):
    """The body that begins a deploy."""

    app_name: str
    image: str
    strategy: str = "ROLLING"
    definition: msgspec.Raw = msgspec.Raw(b"null")


class UpdateRelease(msgspec.Struct, frozen=True):
    """The body that updates the status of a deploy."""

    status: str
