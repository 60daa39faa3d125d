"""Denies the login account Fly.io's Machines API, which can suspend, stop and change the machine.

The platform puts its socket into every machine. The login account, and so every program of a coding
agent, does not need it: root removes its access, and reports it if that fails.
"""

import os
import stat

from agent.platform.account import Account


def may_use(path: str, account: Account) -> bool:
    """Whether the account can connect to the socket: write to it (unix(7)) and reach it.

    Raises `OSError` if that cannot be determined.
    """
    groups = {account.gid, *os.getgrouplist(account.name, account.gid)}
    if not _allows(os.stat(path), account.uid, groups, write=True):
        return False
    folder = os.path.dirname(os.path.realpath(path))
    while _allows(os.stat(folder), account.uid, groups, write=False):
        if folder == "/":
            return True
        folder = os.path.dirname(folder)
    return False


def close(path: str, account: Account) -> str | None:
    """Deny the account the socket; returns a message if the account can still use it.

    If the agent itself runs as the account, there is nothing to deny.
    """
    if os.geteuid() == account.uid:
        return None
    try:
        if not may_use(path, account):
            return None
        status = os.stat(path)
        if status.st_uid == account.uid:
            os.chown(path, 0, 0)
        os.chmod(path, stat.S_IMODE(status.st_mode) & 0o700)
        if not may_use(path, account):
            return None
        reason = "its access cannot be removed"
    except FileNotFoundError:
        return None  # not on Fly.io
    except OSError as error:
        reason = str(error)
    return (
        f"{account.name} may use the Machines API at {path} to suspend, stop or change this "
        f"machine: {reason}"
    )


def _allows(status: os.stat_result, uid: int, groups: set[int], *, write: bool) -> bool:
    bit = stat.S_IWOTH if write else stat.S_IXOTH
    if status.st_uid == uid:
        bit <<= 6
    elif status.st_gid in groups:
        bit <<= 3
    return bool(status.st_mode & bit)
