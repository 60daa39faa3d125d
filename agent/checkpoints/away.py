"""Copies checkpoints to a repository away from the machine, whenever that can be reached.

An interrupted copy is resumed: data that is there already is not sent again.
"""

import asyncio
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress

from msgspec.structs import replace as with_changes

from agent.checkpoints import policy
from agent.checkpoints.faults import Fault, ResticError
from agent.checkpoints.keeper import Keeper
from agent.checkpoints.repository import Refused
from agent.checkpoints.running import CREDENTIALS, Remote
from agent.checkpoints.store import Checkpoint, known
from agent.clock import clock
from agent.events import CheckpointsChecked, CheckpointsUploaded, CheckpointUploadFailed, Notice
from agent.platform.account import CHECKPOINTS_GROUP
from agent.platform.environment import OWN_SECRETS

PASSWORD, SSH_KEY, KNOWN_HOSTS = OWN_SECRETS
PATIENCE = 6 * 3600.0
LISTING = 120.0
"""Seconds that listing the remote repository may take."""

_SFTP = re.compile(
    r"sftp:(?://)?(?:(?P<user>[\w.-]+)@)?(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\])(?::(?P<port>\d+))?"
)


def remote_of(url: str, environ: Mapping[str, str], run_dir: str) -> Remote | None:
    """The repository that the settings name; None if they name none.

    The files that SFTP needs are written to the run folder. Raises `Refused` if a secret is
    missing, and `OSError`.
    """
    if not url:
        return None
    password = environ.get(PASSWORD, "")
    if not password:
        raise Refused(
            f"no copy at {url}: set the secret {PASSWORD}, and store it elsewhere too; if only "
            "this machine has the key, the copy is useless without the machine"
        )
    secrets = {name: value for name, value in environ.items() if CREDENTIALS.fullmatch(name)}
    secrets["RESTIC_PASSWORD"] = password
    if not url.startswith("sftp:"):
        return Remote(url, secrets)
    key, known = environ.get(SSH_KEY, ""), environ.get(KNOWN_HOSTS, "")
    if not key or not known:
        raise Refused(f"no copy at {url}: SFTP needs the secrets {SSH_KEY} and {KNOWN_HOSTS}")
    files = {"checkpoint_key": key, "checkpoint_hosts": known}
    for name, content in files.items():
        _write_for_restic(f"{run_dir}/{name}", content.rstrip("\n") + "\n")
    return Remote(url, secrets, tuple(_ssh(url, *(f"{run_dir}/{name}" for name in files))))


class Away:
    """The part that uploads. It shares the keeper's repository and record."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def run(self) -> None:
        """Upload after each checkpoint until cancelled."""
        keeper = self._keeper
        if not keeper.settings.checkpoint_repo:
            return
        failures = 0
        while True:
            try:
                if is_pending(keeper):
                    await self._upload()
                    await self._check_sometimes()
                failures = 0
                delay = None
            except (ResticError, Refused, OSError) as error:
                failures += 1
                delay = policy.retry_in(failures)
                self._failed(str(error), delay)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await keeper.changed.wait()
            keeper.changed.clear()

    async def _upload(self) -> None:
        keeper, repository, began = self._keeper, self._keeper.repository, clock()
        remote = self.remote()
        if remote is None:
            return
        newest = repository.ledger.checkpoints[-1]
        async with repository.whole:
            keeper.set_upload(uploading=True)
            try:
                await repository.restic(PATIENCE).copy(remote)
            finally:
                keeper.set_upload(uploading=False)
        ledger = with_changes(repository.ledger, uploaded=newest.at, upload_of=newest.id)
        repository.keep(ledger)
        keeper.set_upload(failures=0)
        keeper.bus.publish(CheckpointsUploaded(seconds=clock() - began))

    def remote(self) -> Remote | None:
        """The repository away from the machine. Raises `Refused`, `OSError`."""
        settings = self._keeper.settings
        return remote_of(settings.checkpoint_repo, self._keeper.environ, settings.run_dir)

    async def listing(self) -> list[Checkpoint]:
        """The checkpoints there, the oldest first. Raises `ResticError`, `Refused`, `OSError`."""
        remote = self.remote()
        if remote is None:
            raise Refused("there is no repository away from the machine (SWARM_CHECKPOINT_REPO)")
        async with self._keeper.turn("listing the checkpoints away from the machine"):
            there = await self._keeper.repository.restic(LISTING, gentle=False).snapshots(remote)
        return [known(each) for each in there]

    async def fetch(self, name: str) -> str:
        """Copy a checkpoint from there to the volume; returns its id here. Call it in a `turn`."""
        repository, remote = self._keeper.repository, self.remote()
        if remote is None:
            raise Refused("there is no repository away from the machine (SWARM_CHECKPOINT_REPO)")
        restic = repository.restic(PATIENCE, gentle=False)
        found = [
            each for each in await restic.snapshots(remote) if _is(each.id, each.original, name)
        ]
        if name == "latest":
            found = (await restic.snapshots(remote))[-1:]
        if len(found) != 1:
            raise Refused(f"there is no checkpoint {name!r} away from the machine")
        before = {each.id for each in repository.ledger.checkpoints}
        await restic.fetch(found[0].id, remote)
        await repository.refresh()
        new = [each.id for each in repository.ledger.checkpoints if each.id not in before]
        if new:
            return new[-1]
        # It is here already: under its own id, or under that of its original.
        here = {each.id: each.original for each in await restic.snapshots()}
        wanted = {found[0].id, found[0].original} - {""}
        same = [name for name, original in here.items() if wanted & {name, original}]
        if not same:
            raise ResticError(Fault.OTHER, "the checkpoint was not copied")
        return same[0]

    async def _check_sometimes(self) -> None:
        """Weekly: remove checkpoints that no rule keeps; check the rest and part of its data."""
        keeper, repository, remote = self._keeper, self._keeper.repository, self.remote()
        due = policy.is_check_due(repository.ledger.uploads_checked, time.time())
        if remote is None or not due:
            return
        began, problem = clock(), ""
        async with repository.whole:
            restic = repository.restic(PATIENCE)
            try:
                there = [known(each) for each in await restic.snapshots(remote)]
                ids = policy.surplus(there, keeper.settings.checkpoint_keep)
                if ids:
                    await restic.forget(ids, remote)
                    await restic.prune("10%", remote)
                await restic.check("2%", remote)
            except ResticError as error:
                if error.fault is not Fault.DAMAGED:
                    raise
                problem = str(error)
        repository.keep(with_changes(repository.ledger, uploads_checked=time.time()))
        seconds = clock() - began
        keeper.bus.publish(CheckpointsChecked(repository="away", problem=problem, seconds=seconds))

    def _failed(self, problem: str, delay: float) -> None:
        keeper, ledger = self._keeper, self._keeper.repository.ledger
        keeper.set_upload(failures=keeper.record.upload_failures + 1, problem=problem)
        keeper.bus.publish(CheckpointUploadFailed(problem=problem, retry_in=delay))
        days = policy.days_behind(
            [each.at for each in ledger.checkpoints], ledger.uploaded, time.time()
        )
        if days:
            notice = f"nothing was copied away from the machine for {days} d: {problem}"
            keeper.bus.publish(Notice(part="checkpoint upload", notice=notice))


def is_pending(keeper: Keeper) -> bool:
    """Whether a checkpoint has not been copied away from the machine yet."""
    ledger = keeper.repository.ledger
    return bool(keeper.settings.checkpoint_repo and ledger.checkpoints) and (
        ledger.upload_of != ledger.checkpoints[-1].id
    )


def _is(name: str, original: str, wanted: str) -> bool:
    return bool(wanted) and (name.startswith(wanted) or original.startswith(wanted))


def _ssh(url: str, key: str, hosts: str) -> list[str]:
    match = _SFTP.match(url)
    if match is None:
        raise Refused(f"{url} names no host: write sftp://USER@HOST:PORT/PATH")
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": hosts,
        "ServerAliveInterval": "30",
        "ConnectTimeout": "30",
    }
    words = ["ssh", "-F", "none", "-i", key]
    words += [f"-o{name}={value}" for name, value in options.items()]
    # sftp:host:path has no port; the path follows the colon.
    port = match["port"] if url.startswith("sftp://") else None
    words += ["-p", port] if port else []
    words += ["-l", match["user"]] if match["user"] else []
    return [*words, match["host"].strip("[]"), "-s", "sftp"]


def _write_for_restic(path: str, content: str) -> None:
    """Write a secret that only restic's processes may read."""
    temporary = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        if os.geteuid() == 0:
            os.fchown(descriptor, 0, CHECKPOINTS_GROUP)
            os.fchmod(descriptor, 0o640)
        file.write(content)
    os.rename(temporary, path)
