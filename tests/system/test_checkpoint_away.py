"""Checkpoints away from the machine, by SFTP to the real sshd."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace as with_changes

from agent.checkpoints import away
from agent.checkpoints.faults import ResticError
from agent.checkpoints.policy import Cause
from agent.checkpoints.undo import Order
from agent.events import (
    CheckpointsChecked,
    CheckpointsReplaced,
    CheckpointsUploaded,
    CheckpointUploadFailed,
)
from tests.checkpoints import Hands, Volume, repository_elsewhere, seen
from tests.checkpoints import volume as make_volume
from tests.claims import free_port
from tests.support import Key, make_key, until

pytestmark = pytest.mark.root

PASSWORD = "of the owner"


class Server:
    """An SFTP server on the loopback, with a folder for repositories."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.key = make_key(folder / "client")
        self.host_key = make_key(folder / "host")
        (folder / "keys").write_text(self.key.public)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        config = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": self.host_key.path,
            "AuthorizedKeysFile": self.folder / "keys",
            "PidFile": "none",
            "UsePAM": "no",
            "StrictModes": "no",
            "PermitRootLogin": "yes",
            "Subsystem": "sftp internal-sftp",
        }
        path = self.folder / "sshd_config"
        path.write_text("".join(f"{name} {value}\n" for name, value in config.items()))
        os.makedirs("/run/sshd", exist_ok=True)
        self.process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", path])
        until(self._listens, "the SFTP server")

    def have_repository(self) -> None:
        """Have the repository that the machine finds there, instead of making one."""
        shutil.copytree(repository_elsewhere(PASSWORD), self.folder / "repo")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def environ(self, key: Key | None = None) -> dict[str, str]:
        host, kind, data = "[127.0.0.1]", *self.host_key.public.split()[:2]
        return {
            "SWARM_CHECKPOINT_REPO": f"sftp://root@127.0.0.1:{self.port}/{self.folder}/repo",
            "CHECKPOINT_PASSWORD": PASSWORD,
            "CHECKPOINT_SSH_KEY": (key or self.key).path.read_text(),
            "CHECKPOINT_KNOWN_HOSTS": f"{host}:{self.port} {kind} {data}",
            "AWS_SECRET_ACCESS_KEY": "for restic alone",
        }

    def _listens(self) -> bool:
        words = ["ssh-keyscan", "-p", str(self.port), "127.0.0.1"]
        return b"ssh" in subprocess.run(words, capture_output=True, check=False).stdout


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def volume(server: Server) -> Iterator[Volume]:
    with make_volume(server.environ()) as made:
        (made.work / "project").mkdir()
        (made.work / "project" / "code").write_text("precious")
        (made.work / "project" / "run").write_text("#!/bin/sh\n")
        (made.work / "project" / "run").chmod(0o750)
        os.symlink("code", made.work / "project" / "link")
        made.give()
        yield made


async def upload(hands: Hands) -> str:
    """Make a checkpoint, and wait until it is away."""
    running = asyncio.create_task(hands.away.run())
    try:
        made = await hands.keeper.make(Cause.HAND, "kept, away")
        async with asyncio.timeout(60):
            while away.is_pending(hands.keeper):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return made.id
    finally:
        running.cancel()
        await asyncio.wait([running])


def test_a_destroyed_machine_comes_back_from_the_other_repository(
    volume: Volume, server: Server
) -> None:
    volume.run(upload)
    (volume.work / "project" / "code").write_text("more precious")
    volume.run(upload)
    before = seen(volume.work)
    shutil.rmtree(volume.path)

    with make_volume(server.environ(), new=True) as new:
        new.work.rmdir()

        async def come_back(hands: Hands) -> None:
            there = await hands.away.listing()
            assert [each.note for each in there] == ["kept, away"] * 2
            done = await hands.undo.restore(Order("latest", away=True))
            assert done.placed.failures == 0, done
            assert done.before is not None

        # A machine has its volume at the previous machine's path.
        shutil.move(new.path, volume.path)
        new.path = volume.path
        new.run(come_back)
        assert seen(new.work) == before
        new.path = new.path.parent / "nothing"


def test_what_cannot_be_reached_costs_nothing_here(volume: Volume, server: Server) -> None:
    """The server is down, then refuses us, then is back: uploads resume, the rest keeps working."""
    server.have_repository()
    server.stop()

    async def failing(hands: Hands) -> None:
        running = asyncio.create_task(hands.away.run())
        made = await hands.keeper.make(Cause.HAND)
        async with asyncio.timeout(60):
            while not hands.keeper.record.upload_failures:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.wait([running])
        assert hands.keeper.repository.find(made.id).id == made.id
        assert away.is_pending(hands.keeper)
        assert hands.keeper.record.upload_problem

    volume.run(failing)
    server.start()
    volume.environ |= server.environ(make_key(server.folder / "stranger"))
    volume.run(failing)
    volume.environ |= server.environ() | {"CHECKPOINT_PASSWORD": ""}
    volume.run(failing)
    volume.environ |= server.environ()
    volume.run(upload)
    assert any(isinstance(event, CheckpointsUploaded) for event in volume.events)
    told = [event for event in volume.events if isinstance(event, CheckpointUploadFailed)]
    assert len(told) >= 3
    assert not any("of the owner" in event.problem for event in told)


def test_the_wrong_password_overwrites_nothing(volume: Volume, server: Server) -> None:
    server.have_repository()
    volume.run(upload)
    before = sorted(path.name for path in (server.folder / "repo").rglob("*"))
    volume.environ["CHECKPOINT_PASSWORD"] = "another"

    async def refused(hands: Hands) -> None:
        with pytest.raises(ResticError, match="key is wrong"):
            await hands.away.listing()

    volume.run(refused)
    after = sorted(path.name for path in (server.folder / "repo").rglob("*"))
    assert [name for name in after if name not in before] == []


def restic_there(server: Server, *words: str) -> str:
    """restic as the owner calls it, in the server's folder."""
    environ = {"RESTIC_REPOSITORY": str(server.folder / "repo"), "RESTIC_PASSWORD": PASSWORD}
    done = subprocess.run(
        ["restic", "--no-cache", *words],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


async def upload_and_check(hands: Hands) -> None:
    """Upload, and wait until the other repository has been checked."""
    before = hands.keeper.repository.ledger.uploads_checked
    running = asyncio.create_task(hands.away.run())
    await hands.keeper.make(Cause.HAND)
    async with asyncio.timeout(120):
        while hands.keeper.repository.ledger.uploads_checked == before:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait([running])


def test_the_other_repository_keeps_what_the_rules_say(volume: Volume, server: Server) -> None:
    """Six checkpoints of one hour, months ago: the latest one stays, as the latest of its week."""
    server.have_repository()
    (server.folder / "old").write_text("old")
    for minute in range(6):
        when = f"2020-01-02 10:0{minute}:00"
        restic_there(server, "backup", "--time", when, str(server.folder / "old"))
    volume.run(upload_and_check)
    shown = restic_there(server, "snapshots", "--json")
    kept = [each["time"][:16] for each in json.loads(shown)]
    assert len(kept) == 2, "that week's latest, and the new one"
    assert kept[0] == "2020-01-02T10:05"
    assert restic_there(server, "check", "--read-data")


def test_a_damaged_other_repository_is_reported_and_costs_nothing_here(
    volume: Volume, server: Server
) -> None:
    """The repository on the volume stays."""
    server.have_repository()
    volume.run(upload)
    repository = volume.run(ids)
    for pack in (server.folder / "repo" / "data").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            pack.write_bytes(os.urandom(pack.stat().st_size))

    async def checked(hands: Hands) -> None:
        await hands.keeper.make(Cause.HAND)
        ledger = with_changes(hands.keeper.repository.ledger, uploads_checked=0.0)
        hands.keeper.repository.keep(ledger)
        await upload_and_check(hands)
        await hands.keeper.make(Cause.HAND)

    volume.run(checked)
    told = [each for each in volume.events if isinstance(each, CheckpointsChecked)]
    assert told[-1].repository == "away"
    assert told[-1].problem
    assert not [each for each in volume.events if isinstance(each, CheckpointsReplaced)]
    assert volume.run(ids)[0] == repository[0]


async def ids(hands: Hands) -> list[str]:
    """The checkpoints on the volume."""
    async with hands.keeper.turn("a test"):
        return [each.id for each in hands.keeper.repository.ledger.checkpoints]


def test_no_secret_is_in_a_command_line_or_open_to_the_account(
    volume: Volume, server: Server
) -> None:
    """While it uploads: /proc of restic and its ssh, and the files in the run folder."""
    server.have_repository()
    seen_lines: set[bytes] = set()

    async def look() -> None:
        while True:
            for entry in os.listdir("/proc"):
                if entry.isdigit():
                    try:
                        with open(f"/proc/{entry}/cmdline", "rb") as file:
                            seen_lines.add(file.read())
                    except OSError:
                        continue
            await asyncio.sleep(0.01)

    async def watched(hands: Hands) -> None:
        looking = asyncio.create_task(look())
        await upload(hands)
        looking.cancel()
        await asyncio.wait([looking])

    volume.run(watched)
    assert any(b"copy" in line for line in seen_lines)
    key = (volume.own / "key").read_bytes()
    for line in seen_lines:
        for secret in (b"of the owner", b"for restic alone", key, b"PRIVATE KEY"):
            assert secret not in line
    status = (volume.path.parent / "run" / "checkpoint_key").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o640)
    as_account = ["setpriv", f"--reuid={volume.account.uid}", "--clear-groups"]
    as_account += [f"--regid={volume.account.gid}", "cat"]
    for path in (volume.path.parent / "run" / "checkpoint_key", volume.own / "key"):
        done = subprocess.run([*as_account, path], capture_output=True, check=False)
        assert done.returncode != 0
