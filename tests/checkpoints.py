"""A keeper of checkpoints without an agent, and trees to save."""

import asyncio
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from agent.bus import Bus
from agent.checkpoints.away import Away
from agent.checkpoints.keeper import Keeper
from agent.checkpoints.undo import Undo
from agent.events import Event
from agent.init.children import Children
from agent.platform.account import Account
from agent.platform.volume import give_to
from agent.settings import load
from agent.settings.current import Current
from tests import quick
from tests.claims import once
from tests.support import ROOT

T = TypeVar("T")

LOGIN = "nobody" if ROOT else os.environ.get("USER", "")


@dataclass
class Volume:
    """A volume with files of the account."""

    path: Path
    account: Account
    environ: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def own(self) -> Path:
        return self.path / ".swarm" / "checkpoints"

    def have_repository(self) -> None:
        """Copy the empty repository of `_repository`, as if an earlier run had created it."""
        copy = ["cp", "-a", str(_repository() / ".swarm"), str(self.path)]
        subprocess.run(copy, check=True)

    def give(self) -> None:
        """Give all files of the work to the account."""
        for path in (self.work, *self.work.rglob("*")):
            os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)

    def run(self, use: "Callable[[Hands], Awaitable[T]]") -> T:
        """The result of `use` with a keeper of its own."""

        async def main() -> T:
            loop = asyncio.get_running_loop()
            children, bus = Children(), Bus()
            children.watch(loop)
            bus.subscribe(self.events.append)
            settings = {"SWARM_CHECKPOINTS": "on", "SWARM_VOLUME": str(self.path)}
            settings["SWARM_RUN_DIR"] = str(self.path.parent / "run")
            given = settings | {k: v for k, v in self.environ.items() if k.startswith("SWARM_")}
            current = Current(load(given, privileged=ROOT).settings)
            keeper = Keeper(current, self.account, children, self.environ, lambda: loop.time(), bus)
            away = Away(keeper)
            try:
                return await use(Hands(keeper, away, Undo(keeper, away), children))
            finally:
                keeper.close()
                loop.remove_signal_handler(17)

        return asyncio.run(main())


@dataclass
class Hands:
    """The parts."""

    keeper: Keeper
    away: Away
    undo: Undo
    children: Children


@contextmanager
def volume(environ: Mapping[str, str] | None = None, *, new: bool = False) -> Iterator[Volume]:
    """A volume that the account can enter; it cannot enter pytest's folders.

    A `new` one has no repository; creating one costs restic three seconds of CPU.
    """
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        path = folder / "volume"
        (path / "work").mkdir(parents=True)
        (folder / "run").mkdir()
        uid, gid = (65534, 65534) if ROOT else (os.getuid(), os.getgid())
        account = Account(LOGIN, uid, gid, str(path), "/bin/sh", False)
        if ROOT:
            give_to(str(path), uid, gid)
        made = Volume(path, account, dict(environ or {}))
        made.give()
        if not new:
            made.have_repository()
        yield made
    finally:
        shutil.rmtree(folder)


def _repository() -> Path:
    """A folder with the `.swarm` of a volume on which the agent has made a repository.

    Its key, which the agent made too, is quick to try: half a second of CPU less for each restic.
    """

    def make(folder: Path) -> None:
        async def use(hands: Hands) -> None:
            async with hands.keeper.turn("a test"):
                pass

        with volume(new=True) as made:
            made.run(use)
            quick.quicken(made.own / "repo", (made.own / "key").read_bytes().strip())
            subprocess.run(["cp", "-a", str(made.path / ".swarm"), str(folder)], check=True)

    return once("repository", make)


def repository_elsewhere(password: str) -> Path:
    """An empty repository as the owner of a machine makes it, with a key that is quick to try."""

    def make(folder: Path) -> None:
        environ = os.environ | {"RESTIC_PASSWORD": password}
        command = ["restic", "--no-cache", "init", "--repo", str(folder / "repo")]
        subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, check=True)
        quick.quicken(folder / "repo", password.encode())

    return once("elsewhere", make) / "repo"


Seen = tuple[int, int, str]


def seen(root: Path) -> dict[bytes, Seen]:
    """Everything in a tree: mode, time, and content, target or device."""
    found = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                content = os.fsdecode(os.readlink(path))
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
            else:
                content = ""
            found[os.path.relpath(path, os.fsencode(root))] = (
                status.st_mode,
                status.st_mtime_ns,
                content,
            )
    return found
