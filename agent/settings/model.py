"""Every setting of the agent: its type, default, parser and meaning, in one place.

A field `stop_timeout` is `SWARM_STOP_TIMEOUT` in the environment and `stop_timeout` in the
TOML file. The reference in docs/configuration.md is generated from this module.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

from agent import places
from agent.durations import positive_duration
from agent.network import Network
from agent.settings import units

if TYPE_CHECKING:
    from agent.notify.quiet import QuietHours

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spec:
    """How the text of one setting becomes its value."""

    parse: Callable[[str], object]
    default: str
    default_unprivileged: str
    default_on_fly: str
    doc: str
    live: bool
    """A change of the settings file takes effect while the agent runs."""


def _setting(
    parse: Callable[[str], T],
    default: str,
    doc: str,
    *,
    unprivileged: str | None = None,
    on_fly: str | None = None,
    live: bool = False,
) -> T:
    spec = Spec(
        parse,
        default,
        default if unprivileged is None else unprivileged,
        default if on_fly is None else on_fly,
        doc,
        live,
    )
    return cast(T, field(metadata={"spec": spec}))


@dataclass(frozen=True, slots=True)
class Settings:
    """The effective settings. Durations are seconds, sizes bytes."""

    listen: units.Endpoint = _setting(
        units.endpoint,
        "*:2222",
        "Where SSH is served. Not port 22: on Fly.io that belongs to the platform.",
    )
    user: str = _setting(
        units.user_name,
        "",
        "The one account that may log in. Empty: the account with uid 1000, "
        "or the user who runs the agent if that is not root.",
    )
    volume: str = _setting(
        units.absolute_path,
        "/workspace",
        "The folder that survives the machine. Host keys are kept in `.swarm` below it.",
        unprivileged="~/.local/state/swarm",
    )
    home_links: tuple[units.HomePath, ...] = _setting(
        units.home_paths,
        "usual",
        "Paths of the home that live on the volume, in its `.home`, and are linked in at boot; the "
        "path of a folder ends with a slash. `usual`: the paths of agent/data/home.txt; add yours "
        "to it (`usual .mytool/`). A minus in front: stays off the volume (`-.mytool/cache`).",
        unprivileged="",
    )
    run_dir: str = _setting(
        units.absolute_path,
        places.RUN_DIR,
        "The folder for files of this run only: sshd's configuration, the control socket.",
        unprivileged=places.RUN_DIR_UNPRIVILEGED,
    )
    keys_dir: str = _setting(
        units.absolute_path,
        "/etc/swarm/keys.d",
        "The folder whose .pub files hold keys that may log in, beside the secrets "
        "SSH_AUTHORIZED_KEYS and SSH_AUTHORIZED_KEYS_<NAME>. The folder and its files must belong "
        "to root and be writable by nobody else.",
    )
    sshd: str = _setting(
        units.absolute_path,
        "/usr/sbin/sshd",
        "OpenSSH's server program (8.7 or later).",
    )
    login_grace_time: float = _setting(
        positive_duration,
        "30s",
        "How long a connection may take to log in before it is closed.",
    )
    x11_forwarding: bool = _setting(
        units.switch,
        "off",
        "Whether `ssh -X` works: programs of the machine can then access the client's screen. "
        "Needs xauth in the image.",
    )
    proxy_protocol: str = _setting(
        units.one_of("required", "off"),
        "off",
        "Whether every connection begins with a PROXY protocol header (version 1 or 2) that names "
        "the client. Never guessed.",
        on_fly="required",
    )
    proxy_networks: tuple[Network, ...] = _setting(
        units.networks,
        "172.16.0.0/12, fdaa::/16",
        "The networks of the proxy; a PROXY header from any other is not trusted.",
    )
    private_listen: units.Endpoint | None = _setting(
        units.optional_endpoint,
        "",
        "A second place where SSH is served, without a PROXY header, for the private network "
        "(WireGuard, `fly proxy`). Empty: none.",
    )
    allow_from: tuple[Network, ...] = _setting(
        units.networks,
        "",
        "When set, only clients from these networks may connect.",
    )
    deny_from: tuple[Network, ...] = _setting(
        units.networks,
        "",
        "Clients from these networks may never connect.",
    )
    maxretry: int = _setting(
        units.count,
        "5",
        "Strikes within `findtime` that lead to a ban. A failed connection is one strike, guessing "
        "a user name two, garbage half of one; a login clears them.",
    )
    findtime: float = _setting(
        positive_duration,
        "10m",
        "How long a strike counts.",
    )
    bantime: float = _setting(
        positive_duration,
        "10m",
        "How long the first ban lasts; each further ban lasts twice as long.",
    )
    bantime_max: float = _setting(
        positive_duration,
        "7d",
        "The longest ban. A day after a ban ends, one earlier ban is forgotten.",
    )
    ignoreip: tuple[Network, ...] = _setting(
        units.networks,
        "",
        "Clients from these networks are never banned and never wait. The machine's own addresses "
        "are never banned.",
    )
    ipv6_prefix: int = _setting(
        units.prefix,
        "64",
        "IPv6 clients are counted and banned by this many leading bits.",
    )
    ban_dry_run: bool = _setting(
        units.switch,
        "off",
        "Log who would be banned, but ban nobody (`on`, or `swarm-agent run --dry-run`).",
    )
    max_unauthenticated: int = _setting(
        units.count,
        "128",
        "Connections that may wait to log in: this many of all strangers, and this many of all "
        "networks that logged in before. At the limit, the oldest connection that has not tried to "
        "log in is closed.",
    )
    max_unauthenticated_per_client: int = _setting(
        units.count,
        "64",
        "Connections of one client that may wait to log in.",
    )
    max_connections_per_minute: int = _setting(
        units.count,
        "240",
        "Connections that one client may open in a minute; a client that logged in before is "
        "slowed down instead of refused.",
    )
    max_processes: float | None = _setting(
        units.share_or_off,
        "75%",
        "The login account's share of the processes that the machine can hold: the rest is for "
        "the agent, sshd and the next login. `off`: no limit.",
    )
    idle_timeout: float | None = _setting(
        units.duration_or_off,
        "30m",
        "How long the machine is idle before it announces that it will sleep. `off`: it never "
        "sleeps by itself.",
        live=True,
    )
    idle_warning: float = _setting(
        positive_duration,
        "2m",
        "How long before a sleep every open terminal is warned.",
        live=True,
    )
    boot_grace: float = _setting(
        positive_duration,
        "1m",
        "How long after a start or a wake-up the machine stays awake in any case.",
        live=True,
    )
    wake_window: float | None = _setting(
        units.duration_or_off,
        "3m",
        "The idle timeout of a machine that was woken by a connection, until somebody has logged "
        "in: a port scan must not cost half an hour.",
        live=True,
    )
    max_awake: float | None = _setting(
        units.duration_or_off,
        "off",
        "The longest time awake, whatever is active: for a signal that is always on.",
        live=True,
    )
    sleep_mode: str = _setting(
        units.one_of("off", "stop", "suspend", "auto"),
        "off",
        "How the machine sleeps: `stop` stops it (status 0), `suspend` asks Fly.io to freeze it "
        "(else stops), `auto` suspends a machine of at most 2 GB without swap and stops others. "
        "`off`: it never sleeps; use it where no proxy would wake the machine.",
        on_fly="stop",
        live=True,
    )
    sleep_hook_timeout: float = _setting(
        positive_duration,
        "30s",
        "How long all programs in /etc/swarm/sleep.d and ~/.config/swarm/sleep.d together may "
        "take.",
        live=True,
    )
    lease_max: float = _setting(
        positive_duration,
        "24h",
        "The longest time that one `swarm-agent awake` can hold.",
        live=True,
    )
    idle_terminal: bool = _setting(
        units.switch,
        "on",
        "Typing in a terminal counts as activity.",
        live=True,
    )
    idle_ssh: float | None = _setting(
        units.rate_or_off,
        "256B/s",
        "Traffic of one SSH session, both ways, that counts as activity. Keepalives cause about "
        "10 B/s, an editor that was left open less than 100 B/s.",
        live=True,
    )
    idle_cpu: float | None = _setting(
        units.percent_or_off,
        "5%",
        "Share of a core that one process must use to count as active.",
        live=True,
    )
    idle_network: float | None = _setting(
        units.rate_or_off,
        "1KiB/s",
        "TCP traffic with other machines that counts as activity, without SSH and the agent's own.",
        live=True,
    )
    idle_writes: float | None = _setting(
        units.rate_or_off,
        "16KiB/s",
        "Writing that counts as activity: to the volume if it is a disk of its own, else of one "
        "process.",
        live=True,
    )
    idle_check: float | None = _setting(
        units.duration_or_off,
        "10s",
        "How long all of the user's own checks together may take (programs in /etc/swarm/checks.d "
        "and ~/.config/swarm/checks.d; exit status 0 means busy). `off`: none runs.",
        live=True,
    )
    idle_ignore: tuple[str, ...] = _setting(
        units.words,
        ".vscode-server .vscode-server-insiders .vscode-remote .cursor-server .windsurf-server "
        ".vscodium-server code-server .zed_server JetBrains",
        "Programs in a folder with one of these names never count as active: servers of editors.",
        live=True,
    )
    fly_api: str = _setting(
        units.absolute_path,
        "/.fly/api",
        "The Unix socket of Fly.io's Machines API.",
    )
    session_env: tuple[str, ...] = _setting(
        units.variable_names,
        "ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN ANTHROPIC_BASE_URL ANTHROPIC_MODEL "
        "CLAUDE_CODE_OAUTH_TOKEN OPENAI_API_KEY GEMINI_API_KEY GITHUB_TOKEN GH_TOKEN NPM_TOKEN",
        "Variables and secrets of the agent that SSH sessions and the login account's services "
        "get. They always get the machine's FLY_* variables.",
    )
    agents: int = _setting(
        units.count,
        "2",
        "How many coding agents are expected to work at the same time: they share three quarters "
        "of the memory as Node heap (NODE_OPTIONS).",
    )
    egress: str = _setting(
        units.one_of("open", "standard", "strict"),
        "open",
        "Where the machine's processes may connect to. `standard`: web, SSH, and destinations "
        "allowed by name; `strict`: only destinations allowed by name. Both allow DNS, loopback "
        "and `private_networks`.",
    )
    egress_allow: tuple[str, ...] = _setting(
        units.destinations,
        "",
        "Names of hosts, addresses and networks that are allowed beside those of "
        "agent/data/egress.txt.",
    )
    services_dir: str = _setting(
        units.absolute_path,
        "/etc/swarm/services.d",
        "The folder whose .toml files define services, beside those in the settings file.",
    )
    http_listen: units.Endpoint | None = _setting(
        units.optional_endpoint,
        "*:9091",
        "Where metrics, health and the status page are served. Empty: nowhere.",
        unprivileged="127.0.0.1:9091",
    )
    private_networks: tuple[Network, ...] = _setting(
        units.networks,
        "fdaa::/16",
        "The networks, beside the machine itself, to which the status page shows addresses, users "
        "and keys.",
        live=True,
    )
    budget_hours: float | None = _setting(
        units.hours_or_off,
        "off",
        "The budget of hours awake in a calendar month (UTC): a warning at 80 %, and beyond the "
        "budget `budget_idle_timeout` while nobody is logged in.",
        live=True,
    )
    budget_idle_timeout: float = _setting(
        positive_duration,
        "5m",
        "The idle timeout of a machine whose budget is used up; it ends no session.",
        live=True,
    )
    prices: str = _setting(
        units.optional_path,
        "",
        "A table of prices for cost estimates, in the format of agent/data/prices.toml, the "
        "default.",
        live=True,
    )
    checkpoints: bool = _setting(
        units.switch,
        "on",
        "Keep checkpoints of the volume, with restic: hourly while something works, before each "
        "sleep, before an agent's turn, and by hand.",
        unprivileged="off",
        live=True,
    )
    checkpoint_every: float | None = _setting(
        units.duration_or_off,
        "1h",
        "How often a checkpoint is made while something works. `off`: never on a schedule.",
        live=True,
    )
    checkpoint_keep: units.Keep = _setting(
        units.keep,
        "hourly 24, daily 7, weekly 4",
        "Which checkpoints are kept: the latest of each of the last hours, days and weeks.",
        live=True,
    )
    checkpoint_share: float = _setting(
        units.share,
        "25%",
        "The share of the volume that checkpoints may use; the oldest go first.",
        live=True,
    )
    checkpoint_repo: str = _setting(
        units.repository,
        "",
        "A second repository, away from the machine (S3-compatible, SFTP, rest-server), to which "
        "every checkpoint is copied. Its key is the secret CHECKPOINT_PASSWORD; credentials "
        "are secrets too. Empty: none.",
    )
    notify_about: tuple[str, ...] = _setting(
        units.some_of(
            "waiting",
            "done",
            "failed",
            "sleeping",
            "slept",
            "budget",
            "volume",
            "bans",
            "network",
            "reexecuted",
        ),
        "all",
        "Which news is sent to the addresses of the secret SWARM_NOTIFY; empty: none. "
        "docs/agents.md explains each kind.",
        live=True,
    )
    notify_wait: float = _setting(
        positive_duration,
        "30s",
        "How long a coding agent may wait for a permission or an answer before a message says so.",
        live=True,
    )
    notify_done: float = _setting(
        positive_duration,
        "5m",
        "The end of a turn of a coding agent is sent if the turn took at least this long.",
        live=True,
    )
    notify_quiet: "QuietHours | None" = _setting(
        units.quiet_hours,
        "",
        "Hours in which nothing is sent, such as `22:00-07:00 Europe/Berlin` (UTC without a zone); "
        "the news is sent afterwards, in one message.",
        live=True,
    )
    notify_details: bool = _setting(
        units.switch,
        "off",
        "Send folders, addresses and names of keys too, which then leave the machine.",
        live=True,
    )
    stop_timeout: float = _setting(
        positive_duration,
        "20s",
        "The longest time that a stop may take. Keep the platform's kill timeout above it.",
    )
    log_format: str = _setting(
        units.one_of("auto", "json", "human"),
        "auto",
        "How log lines look: json, human, or auto (human on a terminal).",
    )
    log_level: str = _setting(
        units.one_of("debug", "info", "warning", "error"),
        "info",
        "The least severe event that is logged.",
    )
    log_line_limit: int = _setting(
        units.size,
        "64KiB",
        "The longest text in one field of a log line; a longer one is cut and marked.",
    )
