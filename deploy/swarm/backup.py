"""Back the volume up to an archive on the laptop, compared file by file, and restore it.

The agent's own folder is left out: host keys and bans belong to the machine, not to your work.
"""

import gzip
import hashlib
import os
import shlex
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from deploy.swarm import ssh
from deploy.swarm.place import Place

_LEFT_OUT = (".swarm", "lost+found")
CHUNK = 1 << 20


Content = IO[bytes] | gzip.GzipFile


class BackupError(Exception):
    """The archive differs from the machine; the message says in which files."""


class _Space(msgspec.Struct, frozen=True):
    name: str


class _Status(msgspec.Struct, frozen=True):
    volume: _Space


def volume_of(where: Place) -> str:
    """The path at which the machine's volume is mounted."""
    said = _ssh(where, "swarm-agent status --json")
    return msgspec.json.decode(said, type=_Status).volume.name


def backup(where: Place, target: Path) -> Path:
    """Write the volume's files to an archive in `target`, and check that it has them all.

    Raises `BackupError`; the archive is kept in any case.
    """
    volume = volume_of(where)
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = target / f"{where.name}-{time.strftime('%Y%m%dT%H%M%S')}.tar.gz"
    unfinished = path.with_suffix(".unfinished")
    with reading(where, volume) as stream:
        # It holds the home's keys and tokens: only its owner may read it.
        private = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(private, "wb") as raw, gzip.open(raw, "wb", compresslevel=3) as file:
            shutil.copyfileobj(stream.out, file, CHUNK)
        stream.end()
    unfinished.rename(path)
    compare(
        remote_hashes(where, volume),
        archive_hashes(path),
        f"the archive {path} differs from the machine",
    )
    return path


def restore(where: Place, archive: Path) -> int:
    """Copy an archive's files into the volume; returns their number. Raises `BackupError`."""
    wanted = archive_hashes(archive)
    with gzip.open(archive, "rb") as file:
        return put(where, file, wanted)


@dataclass(frozen=True)
class Stream:
    """The volume as a tar stream; `end` checks that it is complete."""

    out: IO[bytes]
    process: "subprocess.Popen[bytes]"

    def end(self) -> None:
        """Raise `BackupError` if the stream was cut off."""
        if self.process.wait() not in (0, 1):  # 1: a file changed while it was read (tar(1))
            raise BackupError(f"the connection ended with status {self.process.returncode}")


@contextmanager
def reading(where: Place, volume: str) -> Iterator[Stream]:
    """Read the volume's files."""
    left_out = " ".join(f"! -name {name}" for name in _LEFT_OUT)
    # Not the folder itself: it belongs to root, and only root could restore its mode.
    listing = f"find . -mindepth 1 -maxdepth 1 {left_out} -print0"
    script = f"cd {shlex.quote(volume)} && {listing} | sort -z | tar --null -T - -cf -"
    command = ssh.command(where, [script])
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield Stream(process.stdout, process)


def put(where: Place, content: Content, wanted: Mapping[str, str]) -> int:
    """Put a tar stream's files into the volume, and compare; returns their number."""
    volume = volume_of(where)
    command = ssh.command(where, [f"cd {shlex.quote(volume)} && tar --no-overwrite-dir -xpf -"])
    with subprocess.Popen(command, stdin=subprocess.PIPE) as writing:
        assert writing.stdin is not None
        # If the other side exits early, its status says so.
        with suppress(BrokenPipeError):
            shutil.copyfileobj(content, writing.stdin, CHUNK)
            writing.stdin.close()
    if writing.returncode != 0:
        raise BackupError(f"the machine could not take all files (status {writing.returncode})")
    found = remote_hashes(where, volume)
    there = {name: found.get(name, "") for name in wanted}
    compare(wanted, there, "the machine lacks files that the archive has")
    return len(wanted)


def has_work(where: Place) -> bool:
    """Whether the volume has files of the user besides the home's."""
    volume = volume_of(where)
    names = _ssh(where, f"ls -A {shlex.quote(volume)}").split("\n")
    return bool(set(filter(None, names)) - {*_LEFT_OUT, ".home"})


def archive_hashes(path: Path) -> dict[str, str]:
    """Name and SHA-256 of every regular file in an archive. Raises `BackupError`."""
    try:
        with gzip.open(path, "rb") as file:
            return hashes_in(file, str(path))
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error}") from error


def hashes_in(content: Content, name: str) -> dict[str, str]:
    """The same for a tar stream."""
    found: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=content, mode="r|") as archive:
            for member in archive:
                path = _within(member.name)
                data = archive.extractfile(member) if member.isfile() else None
                if member.islnk():
                    found[path] = found.get(_within(member.linkname), "")
                elif data is not None:
                    found[path] = hashlib.file_digest(data, "sha256").hexdigest()  # type: ignore[arg-type]
    except (OSError, EOFError, tarfile.TarError) as error:
        raise BackupError(f"{name} cannot be read: {error}") from error
    return found


def _within(name: str) -> str:
    return name if name.startswith("./") else f"./{name}"


def remote_hashes(where: Place, volume: str) -> dict[str, str]:
    """Name and SHA-256 of every regular file on the volume. Raises `BackupError`."""
    pruned = " -o ".join(f"-path ./{name}" for name in _LEFT_OUT)
    said = _ssh(
        where,
        # A file deleted meanwhile is not a failure: the answer lacks it.
        f"cd {shlex.quote(volume)} && find . \\( {pruned} \\) -prune -o -type f -print0 "
        "| xargs -0 -r sha256sum -z || true",
    )
    lines = filter(None, said.split("\0"))
    return {line[66:]: line[:64] for line in lines}


def compare(wanted: Mapping[str, str], found: Mapping[str, str], what: str) -> None:
    """Raise `BackupError` if a wanted file differs."""
    differ = sorted(name for name in wanted if wanted[name] != found.get(name))
    if differ:
        shown = ", ".join(differ[:5]) + (f" and {len(differ) - 5} more" if len(differ) > 5 else "")
        raise BackupError(f"{what}: {shown} (did they change meanwhile? run it again)")


def _ssh(where: Place, script: str) -> str:
    command = ssh.command(where, [script], ["-o", "BatchMode=yes"])
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        raise BackupError(f"ssh {where.name}: {os.fsdecode(done.stderr).strip()[-400:]}")
    return os.fsdecode(done.stdout)  # names need not be UTF-8
