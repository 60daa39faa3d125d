"""Backups in a restic repository on the laptop, if restic is installed.

It stores the tar stream of `backup`, uncompressed: restic splits it by content, so a backup of a
machine that changed little adds little. Repository and key are side by side, as safe as archives
would be; the machine knows neither.
"""

import fcntl
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

from deploy.swarm import backup
from deploy.swarm.backup import CHUNK, BackupError
from deploy.swarm.place import Place

ID = re.compile(r"latest|[0-9a-f]{4,64}")
_FILE = "volume.tar"


class Saved(msgspec.Struct, frozen=True):
    """A backup in the repository, as restic reports it."""

    snapshot_id: str
    data_added: int
    total_bytes_processed: int


def program() -> str | None:
    """The path of restic on this laptop, or None."""
    return shutil.which("restic")


class Vault:
    """The repository below a folder of backups; all machines share it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "restic"
        self.key = folder / "restic.key"

    def save(self, where: Place) -> Saved:
        """Back up the machine's volume, and compare every file. Raises `BackupError`.

        Nothing is kept of an incomplete stream.
        """
        volume = backup.volume_of(where)
        words = ["--json", "--stdin", "--stdin-filename", _FILE, "--host", where.name]
        command = self._command("backup", *words)
        with (
            self._alone(),
            backup.reading(where, volume) as stream,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environ
            ) as writing,
        ):
            assert writing.stdin is not None
            assert writing.stdout is not None
            with suppress(BrokenPipeError):  # it exited early: its status says so
                try:
                    shutil.copyfileobj(stream.out, writing.stdin, CHUNK)
                    stream.end()
                except BaseException:
                    writing.kill()  # at the end of its input it would keep the incomplete data
                    raise
                finally:
                    writing.stdin.close()
            said = writing.stdout.read()
        if writing.returncode != 0:
            raise BackupError(f"restic failed (status {writing.returncode})")
        saved = msgspec.json.decode(said.strip().rpartition(b"\n")[2], type=Saved)
        with self._content(where.name, saved.snapshot_id) as content:
            found = backup.hashes_in(content, saved.snapshot_id)
        backup.compare(
            backup.remote_hashes(where, volume),
            found,
            f"backup {saved.snapshot_id} differs from the machine",
        )
        return saved

    def restore(self, where: Place, name: str, source: str = "") -> int:
        """Put a backup's files into the volume; returns their number. Raises `BackupError`.

        `source` names the machine that was backed up, if it is another one.
        """
        source = source or where.name
        with self._content(source, name) as content:
            wanted = backup.hashes_in(content, name)
        with self._content(source, name) as content:
            return backup.put(where, content, wanted)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the repository, which is created if it is missing; another backup into it waits.

        restic allows several at once, but fails if one has listed another's lock that is gone
        before it can be read.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self.path.parent / "restic.lock", os.O_RDONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.key.exists():
                descriptor = os.open(self.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(descriptor, "w") as file:
                    file.write(secrets.token_hex(32))
            if not (self.path / "config").exists():
                self._do("init")
            yield
        finally:
            os.close(lock)

    @property
    def _environ(self) -> dict[str, str]:
        where = {"RESTIC_REPOSITORY": str(self.path), "RESTIC_PASSWORD_FILE": str(self.key)}
        return {**os.environ, **where}

    def _command(self, *words: str) -> list[str]:
        found = program()
        if found is None:
            raise BackupError(f"{self.path} needs restic, which is not installed here")
        return [found, "--quiet", *words]

    def _do(self, *words: str) -> None:
        done = subprocess.run(
            self._command(*words), env=self._environ, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BackupError(f"restic {words[0]}: {done.stderr.strip()[-400:]}")

    @contextmanager
    def _content(self, host: str, name: str) -> Iterator[IO[bytes]]:
        """The tar stream of a backup. Raises `BackupError`."""
        if not ID.fullmatch(name):
            raise BackupError(f"{name!r} is not a backup ID")
        # It only reads: without a lock it blocks nobody.
        command = self._command("--no-lock", "dump", "--host", host, name, f"/{_FILE}")
        with subprocess.Popen(command, env=self._environ, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            yield process.stdout
            while process.stdout.read(CHUNK):
                pass  # padding after the archive's end
        if process.returncode != 0:
            raise BackupError(f"{self.path} does not have all of {name} of {host}")
