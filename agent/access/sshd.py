"""sshd's configuration: written for each boot, checked by sshd itself.

Only keywords that every OpenSSH from 8.7 to 10.x knows are used. Algorithms are given as what
to leave out of the defaults, with patterns, so that a newer sshd keeps its newer algorithms and
an older one does not stumble over names it has never heard.
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
    # Without root the folders above ours are the user's own business, as is everything sshd does.
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

# An agent that offers its keys one by one needs room before the right one.
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

# The agent reads what sshd says, so the level is not a matter of taste.
LogLevel VERBOSE

KexAlgorithms -diffie-hellman-*,ecdh-sha2-*
Ciphers -*-cbc*
MACs -hmac-sha1*,umac-64*,hmac-sha2-256,hmac-sha2-512,umac-128@openssh.com
PubkeyAcceptedKeyTypes -ssh-rsa,ssh-rsa-cert*,ssh-dss*
"""


def _as_pattern(name: str) -> str:
    # What follows an "@" would be a host: a single letter stands for it.
    return name.replace("@", "?")


def in_place(settings: Settings, account: Account) -> bool:
    """The configuration that these settings make is the one that every connection gets."""
    try:
        with open(f"{settings.run_dir}/{SSHD_CONFIG}", encoding="utf-8") as file:
            return file.read() == configuration(settings, account)
    except OSError:
        return False


async def write_and_check(settings: Settings, account: Account, children: Children) -> str | None:
    """Write the configuration and have `sshd -t` read it. Raises `SshdError`, `OSError`.

    Where sshd does not answer in time, the configuration counts without its word; what to report.
    """
    if os.geteuid() == 0:
        os.makedirs(PRIVILEGE_SEPARATION_DIR, mode=0o755, exist_ok=True)
    # In place only when it is whole and good: the sshd of a connection may be reading it.
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
    """A file without a name with the configuration of one connection; its descriptor, to close.

    `environ` is what the login's environment gets beside sshd's own. It has secrets: it is under
    no name and on no command line. Raises `OSError`.
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
    """Start the sshd of one connection: it owns the socket, and says on `errors` what it does.

    `config` is the descriptor of a `connection_config`. Raises `OSError`.
    """
    # By way of our own descriptors: sshd closes all that it inherits before it reads anything.
    argv = [settings.sshd, "-i", "-e", "-f", f"/proc/{os.getpid()}/fd/{config}"]
    return children.spawn(
        argv, env=clean_environment(), stdin=connection, stdout=connection, stderr=errors
    )
