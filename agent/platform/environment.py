"""The part of the agent's environment that SSH sessions and services get.

Secrets reach the agent as environment variables, and every child starts from a clean environment.
A setting names the variables for sessions; facts about the machine are always included.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from agent.init.children import PATH, UTF_8
from agent.platform.account import Account, places_of
from agent.platform.memory import usable_memory

FACTS = (
    "FLY_APP_NAME",
    "FLY_MACHINE_ID",
    "FLY_MACHINE_VERSION",
    "FLY_REGION",
    "FLY_PRIVATE_IP",
    "FLY_PUBLIC_IP",
    "FLY_IMAGE_REF",
    "FLY_PROCESS_GROUP",
    "FLY_VM_MEMORY_MB",
    "PRIMARY_REGION",
)
"""Variables of Fly.io that are not secret; listed by name, because FLY_API_TOKEN is a secret."""

IMAGE_ENV = "/etc/swarm/image-env"
"""The output of `env -0` when the image was built (container/Dockerfile)."""

LARGEST_IMAGE_ENV = 256 << 10

NOT_THE_IMAGES = (
    "SWARM_",
    "FLY_",
    "HOME",
    "PATH",
    "PWD",
    "OLDPWD",
    "HOSTNAME",
    "SHLVL",
    "TERM",
    "_=",
)
"""Prefixes of variables that belong to the agent, the machine or a single process."""

SETTINGS = frozenset(
    "LANG LANGUAGE LC_ALL LC_CTYPE LC_COLLATE LC_MESSAGES LC_NUMERIC LC_TIME TZ "
    "EDITOR VISUAL PAGER BROWSER GIT_EDITOR GIT_PAGER "
    "HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY "
    "http_proxy https_proxy ftp_proxy all_proxy no_proxy "
    "SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE NODE_EXTRA_CA_CERTS "
    "NODE_ENV DISABLE_AUTOUPDATER DISABLE_TELEMETRY DISABLE_ERROR_REPORTING DO_NOT_TRACK "
    "CLAUDE_CONFIG_DIR CODEX_HOME".split()
)
"""Not secret, and often set when a container is started; listed by name, because secrets come the
same way. SWARM_SESSION_ENV names further variables for sessions."""

OWN_SECRETS = ("CHECKPOINT_PASSWORD", "CHECKPOINT_SSH_KEY", "CHECKPOINT_KNOWN_HOSTS")
"""Only for the agent, whatever SWARM_SESSION_ENV names: they open the copy of the checkpoints,
which no session may be able to destroy."""

LOCALE = ("LC_ALL", "LC_CTYPE", "LANG")

NODE_OPTIONS = "NODE_OPTIONS"

MOST_TOGETHER, MOST_OF_ONE = 200 << 10, 100 << 10
"""The most bytes of all variables, and of one: sshd reads at most 256 KiB of configuration and else
exits silently; the kernel passes no variable of 128 KiB to a program (execve(2))."""

_NODE_SHARE = 0.75
_NODE_LEAST = 256


@dataclass(frozen=True, slots=True)
class SessionEnvironment:
    """Variables by name, and the names of variables that cannot be passed on.

    `unusable` have line breaks; `too_large` exceed what sshd reads or a program can get.
    """

    variables: Mapping[str, str]
    unusable: tuple[str, ...] = ()
    too_large: tuple[str, ...] = ()


def image_names(environ: Mapping[str, str], path: str = IMAGE_ENV) -> frozenset[str]:
    """Variables of the agent that still have the value of the image's build.

    So an image's ENV reaches sessions, but secrets do not: they are set later, and a secret with
    the name of such a variable has another value. Raises `OSError`.
    """
    try:
        with open(path, "rb") as file:
            said = os.fsdecode(file.read(LARGEST_IMAGE_ENV)).split("\0")
    except FileNotFoundError:
        return frozenset()
    built = {f"{name}={value}" for name, value in environ.items()} & set(said)
    return frozenset(
        word.partition("=")[0] for word in built if not word.startswith(NOT_THE_IMAGES)
    )


def session_environment(
    environ: Mapping[str, str],
    image: frozenset[str],
    names: tuple[str, ...],
    agents: int,
    account: Account,
) -> SessionEnvironment:
    """The facts, the variables that `image` and `names` name, and usual settings of `environ`.

    Text is UTF-8 unless the image names a locale, whatever LANG the client sends: the machine may
    lack that locale. Each of `agents` Node programs gets its share of three quarters of the memory,
    unless NODE_OPTIONS is given.
    """
    chosen = {
        name: environ[name]
        for name in (*FACTS, *sorted(SETTINGS | image), NODE_OPTIONS, *names)
        if name in environ and name not in OWN_SECRETS
    }
    usable = {name: value for name, value in chosen.items() if not set(value) & set("\n\r\0")}
    fitting, too_large = _fitting(usable)
    heap = max(_NODE_LEAST, int(usable_memory() * _NODE_SHARE / agents) >> 20)
    defaults = {NODE_OPTIONS: f"--max-old-space-size={heap}"}
    # Python itself sets LC_CTYPE if no locale is set (PEP 538).
    if {environ.get(name) or UTF_8 for name in LOCALE} == {UTF_8}:
        defaults |= {"LANG": UTF_8, "LC_CTYPE": UTF_8}
    places = places_of(account.uid, account.home, f"{environ.get('PATH', '')}:{PATH}")
    unusable = tuple(sorted(chosen.keys() - usable.keys()))
    return SessionEnvironment(places | defaults | fitting, unusable, too_large)


def _fitting(variables: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """As many variables as fit, small ones first, and the names of the rest."""
    fitting: dict[str, str] = {}
    left = MOST_TOGETHER
    for name, value in sorted(variables.items(), key=lambda item: len(item[1])):
        # As written in sshd_config: quotes and backslashes take two bytes.
        size = len(os.fsencode(f"{name}={value}")) + sum(map(value.count, "\\\"'")) + 3
        left -= size
        if left < 0 or size > MOST_OF_ONE:
            break
        fitting[name] = value
    return fitting, tuple(sorted(variables.keys() - fitting.keys()))
