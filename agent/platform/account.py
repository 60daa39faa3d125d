"""The one account that may log in."""

import os
import pwd
import time
from dataclasses import dataclass

from agent.init.children import PATH, Credentials, clean_environment

DEFAULT_UID = 1000
SHADOW, NOLOGIN = "/etc/shadow", "/etc/nologin"

OWN_PROGRAMS = (".npm-global/bin", ".local/bin")
"""The folders in the home into which people install programs."""

RUNTIME = "/run/user"
ROOT_HOME = "/root/"

CHECKPOINTS_GROUP = 65017
"""The group of the processes that read and write checkpoints, and of nothing else.

One of the numbers that Debian reserves. No account may be in it.
"""


@dataclass(frozen=True, slots=True)
class Account:
    """A Unix account. `locked` accounts are refused by sshd (`UsePAM no`)."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    locked: bool


def credentials_of(name: str) -> Credentials | None:
    """Credentials to run a child as this account; None if we run as it. Raises `KeyError`."""
    entry = pwd.getpwnam(name)
    if os.geteuid() == entry.pw_uid:
        return None
    groups = os.getgrouplist(name, entry.pw_gid)
    return Credentials(entry.pw_uid, entry.pw_gid, tuple(groups))


def environment_of(name: str) -> dict[str, str]:
    """The base environment of every process of this account. Raises `KeyError`."""
    entry = pwd.getpwnam(name)
    who = {"HOME": entry.pw_dir, "USER": name, "LOGNAME": name, "SHELL": entry.pw_shell}
    return clean_environment() | who | places_of(entry.pw_uid, entry.pw_dir, PATH)


def places_of(uid: int, home: str, path: str) -> dict[str, str]:
    """PATH with the account's own program folders, and its folder for sockets."""
    if uid == 0:
        return {"PATH": path}
    own = [f"{home}/{folder}" for folder in OWN_PROGRAMS]
    # The agent's own PATH may name folders in root's home, which nobody else can read.
    others = [each for each in path.split(":") if each and not f"{each}/".startswith(ROOT_HOME)]
    folders = dict.fromkeys([*own, *others])
    found = {"PATH": ":".join(folders)}
    runtime = f"{RUNTIME}/{uid}"
    return found | {"XDG_RUNTIME_DIR": runtime} if os.path.isdir(runtime) else found


def make_runtime_folder(account: Account) -> None:
    """Create the account's folder below /run (XDG Base Directories). Raises `OSError`."""
    os.makedirs(RUNTIME, mode=0o755, exist_ok=True)
    path = f"{RUNTIME}/{account.uid}"
    os.makedirs(path, mode=0o700, exist_ok=True)
    os.chown(path, account.uid, account.gid)


class AccountError(Exception):
    """There is no usable login account; the message says what to do."""


def find(name: str, *, shadow: str = SHADOW) -> Account:
    """The account `name`; without a name, uid 1000, or the user who runs us if not root.

    Raises `AccountError`.
    """
    uid = os.geteuid()
    try:
        entry = pwd.getpwnam(name) if name else pwd.getpwuid(uid or DEFAULT_UID)
    except KeyError:
        wanted = f"the account {name!r}" if name else f"an account with uid {uid or DEFAULT_UID}"
        raise AccountError(
            f"{wanted} does not exist: create it, or name the login account in SWARM_USER"
        ) from None
    if entry.pw_uid == 0:
        raise AccountError(
            "root cannot be the login account: name an ordinary account in SWARM_USER"
        )
    if uid not in (0, entry.pw_uid):
        raise AccountError(
            f"only root can let {entry.pw_name} log in: without root, SWARM_USER can only be "
            f"the account that runs the agent"
        )
    locked = uid == 0 and _is_locked(entry.pw_name, entry.pw_passwd, shadow)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell, locked)


def refused_because(
    account: Account, *, shadow: str = SHADOW, nologin: str = NOLOGIN
) -> str | None:
    """Why sshd refuses this account now, whatever the key, and what to do; None if it does not.

    It follows allowed_user() in auth.c and do_nologin() in session.c of OpenSSH.
    """
    if account.locked:
        return (
            f"the account {account.name} is locked, and sshd refuses locked accounts: "
            f"run usermod -p '*' {account.name} when the image is built "
            "(a password still does not let anybody in)"
        )
    shell = account.shell or "/bin/sh"
    if not os.path.isfile(shell) or not os.stat(shell).st_mode & 0o111:
        return (
            f"the shell {shell} of {account.name} is missing or not executable, and sshd refuses "
            f"such accounts: install it, or run usermod -s /bin/bash {account.name}"
        )
    if os.geteuid() == 0 and _is_expired(account.name, shadow):
        return (
            f"the account {account.name} has expired, and sshd refuses it: "
            f"run usermod -e '' {account.name}"
        )
    if os.path.lexists(nologin):
        return f"{nologin} exists, and sshd ends every login but root's: remove it"
    return None


def _is_expired(name: str, shadow: str) -> bool:
    expires = _shadow_fields(name, shadow)[7:8]
    today = time.time() // 86400
    return bool(expires) and expires[0].isdecimal() and today > int(expires[0])


def _shadow_fields(name: str, shadow: str) -> list[str]:
    """The account's line of shadow(5); empty if there is none."""
    try:
        with open(shadow, encoding="utf-8", errors="replace") as file:
            for line in file:
                fields = line.strip().split(":")
                if fields[0] == name:
                    return fields
    except OSError:
        pass  # no shadow file: sshd looks at the password field of /etc/passwd
    return []


def _is_locked(name: str, password: str, shadow: str) -> bool:
    # auth.c of OpenSSH: on Linux an account is locked when its password field starts with "!".
    fields = _shadow_fields(name, shadow)
    return (fields[1] if len(fields) > 1 else password).startswith("!")
