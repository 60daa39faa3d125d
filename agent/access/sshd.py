"""sshd's configuration: written at each boot, checked by sshd itself.

Only keywords that every OpenSSH from 8.7 to 10.x knows are used. Algorithms are removed from the
defaults by patterns, so that a newer sshd keeps its new algorithms and an older one does not fail
on names that it does not know.
"""

import os
from collections.abc import Mapping

from agent import safe, unnamed
from agent.access.hostkeys import NAME as HOST_KEY
from agent.init.children import Child, Children, NotDone, clean_environment
from agent.places import SSHD_CONFIG
from agent.platform.account import Account
from agent.settings import Settings

AUTHORIZED_KEYS = "authorized_keys"
PRIVILEGE_SEPARATION_DIR = "/run/sshd"

PATIENCE = 15.0
"""Seconds that `sshd -t` may take on a cold disk."""


class SshdError(Exception):
    """sshd is missing or refuses its configuration; the message says what to do."""


def configuration(settings: Settings, account: Account) -> str:
    """The text of sshd_config(5) for connections handed over by the gate."""
    run_dir = settings.run_dir
    # Without root, sshd runs as the user, and parent folders may have any mode.
    strict = "yes" if os.geteuid() == 0 else "no"
    return f"""\
# Written by swarm-agent at every start; changes are lost.
HostKey {run_dir}/{HOST_KEY}
AuthorizedKeysFile {run_dir}/{AUTHORIZED_KEYS}
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
HostbasedAuthentication no
PermitEmptyPasswords no
PermitRootLogin no
AllowUsers {_as_pattern(account.name)}
UsePAM no
StrictModes {strict}
UseDNS no

# A client that offers its keys one by one needs several attempts.
MaxAuthTries 10
MaxSessions 64
LoginGraceTime {max(1, round(settings.login_grace_time))}
ClientAliveInterval 20
ClientAliveCountMax 3

AllowTcpForwarding yes
AllowStreamLocalForwarding yes
AllowAgentForwarding yes
GatewayPorts no
PermitTunnel no
X11Forwarding {"yes" if settings.x11_forwarding else "no"}
StreamLocalBindUnlink yes
PermitUserEnvironment no
PermitUserRC no
AcceptEnv LANG LC_* COLORTERM TERM_PROGRAM TERM_PROGRAM_VERSION GIT_PROTOCOL
Subsystem sftp internal-sftp
PrintMotd no
PidFile none

# The agent parses the messages of sshd, and needs those of this level.
LogLevel VERBOSE

KexAlgorithms -diffie-hellman-*,ecdh-sha2-*
Ciphers -*-cbc*
MACs -hmac-sha1*,umac-64*,hmac-sha2-256,hmac-sha2-512,umac-128@openssh.com
PubkeyAcceptedKeyTypes -ssh-rsa,ssh-rsa-cert*,ssh-dss*
"""


def _as_pattern(name: str) -> str:
    # Text after an "@" would be a host: "?" matches any one letter instead.
    return name.replace("@", "?")


def in_place(settings: Settings, account: Account) -> bool:
    """The installed configuration is the one for these settings."""
    try:
        with open(f"{settings.run_dir}/{SSHD_CONFIG}", encoding="utf-8") as file:
            return file.read() == configuration(settings, account)
    except OSError:
        return False


async def write_and_check(settings: Settings, account: Account, children: Children) -> str | None:
    """Write the configuration and check it with `sshd -t`. Raises `SshdError`, `OSError`.

    If sshd does not answer in time, the configuration is used unchecked: returns that problem.
    """
    if os.geteuid() == 0:
        os.makedirs(PRIVILEGE_SEPARATION_DIR, mode=0o755, exist_ok=True)
    # Renamed only when complete and checked: the sshd of a connection may read it at any time.
    path = f"{settings.run_dir}/{SSHD_CONFIG}.new"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(configuration(settings, account))
    problem = None
    try:
        await _check(settings.sshd, path, children)
    except NotDone as error:
        problem = f"{error}; its configuration is used unchecked"
    os.rename(path, f"{settings.run_dir}/{SSHD_CONFIG}")
    return problem


async def _check(program: str, path: str, children: Children) -> None:
    argv = [program, "-t", "-f", path]
    try:
        done = await children.run(argv, env=clean_environment(), patience=PATIENCE)
    except OSError as error:
        raise SshdError(
            f"cannot run {program} ({error.strerror}): install openssh-server, "
            "or name the program in SWARM_SSHD"
        ) from error
    if done.status.code != 0:
        said = safe.lines(done.output.decode("utf-8", "backslashreplace").strip())
        raise SshdError(f"sshd refuses {path} ({done.status}): {said}")


def connection_config(settings: Settings, environ: Mapping[str, str]) -> int:
    """Write the configuration of one connection to a file without a name. Raises `OSError`.

    Returns its descriptor, which the caller closes. `environ` is added to the login's environment.
    It has secrets, so it is in no file with a name and on no command line.
    """
    words = " ".join(_quoted(f"{name}={value}") for name, value in environ.items())
    text = f"SetEnv {words}\nInclude {settings.run_dir}/{SSHD_CONFIG}\n"
    return unnamed.write(os.fsencode(text), settings.run_dir)


def _quoted(word: str) -> str:
    # argv_split in misc.c of OpenSSH.
    for special in ("\\", '"', "'"):
        word = word.replace(special, "\\" + special)
    return f'"{word}"'


def serve(
    settings: Settings, children: Children, connection: int, errors: int, config: int
) -> Child:
    """Start the sshd of one connection: it owns the socket, and writes messages to `errors`.

    `config` is the descriptor of a `connection_config`. Raises `OSError`.
    """
    # The path of our own descriptor: sshd closes all that it inherits before it reads anything.
    argv = [settings.sshd, "-i", "-e", "-f", f"/proc/{os.getpid()}/fd/{config}"]
    return children.spawn(
        argv, env=clean_environment(), stdin=connection, stdout=connection, stderr=errors
    )
