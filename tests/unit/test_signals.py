"""Each signal reads real data: this kernel's processes, sockets and terminals."""

import asyncio
import math
import os
import pty
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.access.sessions import Sessions
from agent.idle.signals import disk, processes, sockdiag
from agent.idle.signals.sign import Sign, Signal
from agent.idle.signals.terminals import Terminals
from agent.init import proctree
from agent.platform.account import CHECKPOINTS_GROUP
from tests.support import until

SPIN = "while :; do :; done"


def look(signal: Signal, now: float) -> list[Sign]:
    return asyncio.run(_look(signal, now))


async def _look(signal: Signal, now: float) -> list[Sign]:
    return await signal.look(now)


@contextmanager
def running(*command: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(command)
    yield process
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def all_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show all processes: ours may not be among the busiest on this computer."""
    monkeypatch.setattr(processes, "SHOWN", 10_000)


def wait_for_cpu(pid: int, ticks: int) -> None:
    end = time.monotonic() + 30
    while (process := proctree.read_process(pid)) is None or process.cpu < ticks:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_busy_process_is_named_with_its_share() -> None:
    signal = processes.cpu(0.05, ())
    look(signal, 100.0)
    with running("sh", "-c", SPIN) as process:
        wait_for_cpu(process.pid, 50)
        signs = look(signal, 101.0)
    own = [sign for sign in signs if f"pid {process.pid} " in sign.because]
    assert own[0].active
    assert "% of a core" in own[0].because


def test_the_program_of_an_editor_does_not_count_however_busy(tmp_path: Path) -> None:
    program = tmp_path / ".vscode-server" / "bin" / "node"
    program.parent.mkdir(parents=True)
    program.write_bytes(Path("/bin/sh").read_bytes())
    program.chmod(0o755)
    signal = processes.cpu(0.05, (".vscode-server",))
    look(signal, 100.0)
    with running(str(program), "-c", SPIN) as process:
        wait_for_cpu(process.pid, 50)
        signs = look(signal, 101.0)
    own = [sign for sign in signs if f"pid {process.pid} " in sign.because]
    assert [sign.active for sign in own] == [False]
    assert own[0].because.endswith("ignored (.vscode-server)")


def test_what_children_used_counts_for_the_parent_that_waited_for_them() -> None:
    """A build is many short processes: none lives long enough to be seen twice."""
    signal = processes.cpu(0.05, ())
    look(signal, 100.0)
    script = "while :; do sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'; done"
    with running("sh", "-c", script) as process:
        wait_for_cpu(process.pid, 30)
        signs = look(signal, 101.0)
    assert any(f"pid {process.pid} " in sign.because for sign in signs)


def test_the_first_look_only_notes() -> None:
    with running("sh", "-c", SPIN) as process:
        wait_for_cpu(process.pid, 20)
        assert look(processes.cpu(0.01, ()), 100.0) == []


def test_writes_of_a_process_are_seen(tmp_path: Path) -> None:
    signal = processes.writes(16 << 10, ())
    target = tmp_path / "data"
    look(signal, 100.0)
    # dd's writes count for the shell once the shell has waited for it.
    write = f"dd if=/dev/zero of={target} bs=1M count=4 status=none conv=fsync"
    with running("sh", "-c", f"{write}; : >{target}.done; sleep 60") as process:
        until((tmp_path / "data.done").exists, "the end of dd")
        signs = look(signal, 110.0)
    assert any(f"pid {process.pid} " in sign.because and sign.active for sign in signs)


def test_typing_moves_the_atime_and_output_does_not() -> None:
    master, slave = pty.openpty()
    name = os.path.basename(os.ttyname(slave))
    signal = Terminals(Sessions())
    look(signal, 1.0)
    os.write(slave, b"output\n")
    os.read(master, 100)
    assert not [sign for sign in look(signal, 2.0) if f"pts/{name}," in sign.because]
    os.utime(f"/dev/pts/{name}", (0, 0))  # the kernel moves it only every 8 seconds
    look(signal, 3.0)
    os.write(master, b"input\n")
    os.read(slave, 100)
    typed = [sign for sign in look(signal, 4.0) if f"pts/{name}," in sign.because]
    assert [sign.active for sign in typed] == [True]
    os.close(master)
    os.close(slave)


def own_address() -> str:
    """An address of this machine that is not loopback's."""
    out = subprocess.run(["ip", "-4", "-o", "addr"], capture_output=True, text=True, check=True)
    found = [line.split()[3].split("/")[0] for line in out.stdout.splitlines()]
    return next((address for address in found if not address.startswith("127.")), "")


def test_sockets_are_listed_with_their_bytes_and_inode() -> None:
    address = own_address()
    if not address:
        pytest.skip("this machine has no address but loopback's")
    with socket.create_server((address, 0)) as server:
        place = server.getsockname()
        with socket.create_connection(place) as client, server.accept()[0] as other:
            client.sendall(b"x" * 5000)
            while len(other.recv(5000, socket.MSG_PEEK)) < 5000:
                pass
            inode = os.fstat(client.fileno()).st_ino
            found = {entry.inode: entry for entry in sockdiag.connected_sockets()}
    assert found[inode].total >= 5000
    assert (str(found[inode].remote), found[inode].remote_port) == place


def test_loopback_sockets_are_left_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = server.getsockname()
        with socket.create_connection(place) as client, server.accept()[0]:
            inode = os.fstat(client.fileno()).st_ino
            assert inode not in {entry.inode for entry in sockdiag.connected_sockets()}


def test_a_folder_of_a_shared_disk_is_no_disk_of_its_own(tmp_path: Path) -> None:
    assert disk.disk_of(str(tmp_path)) is None
    assert disk.disk_of("/") is None


@pytest.mark.root
def test_writes_to_a_volume_with_a_disk_of_its_own(tmp_path: Path) -> None:
    image, mount = tmp_path / "image", tmp_path / "volume"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
    try:
        device = disk.disk_of(str(mount))
        assert device is not None
        restic_ran = -math.inf
        signal = disk.DiskWrites(device, 16 << 10, lambda: restic_ran)
        os.sync()
        look(signal, 100.0)
        with (mount / "own").open("wb") as data:
            data.write(os.urandom(4 << 20))
            data.flush()
            os.fsync(data.fileno())
        assert not [sign for sign in look(signal, 110.0) if sign.active]
        write = ["dd", "if=/dev/urandom", f"of={mount}/theirs", "bs=1M", "count=16", "conv=fsync"]
        subprocess.run(write, check=True, capture_output=True)
        signs = look(signal, 120.0)
        assert [sign.active for sign in signs] == [True]
        assert f"the volume's disk ({device})" in signs[0].because

        # A checkpoint writes, and meanwhile another process does.
        restic_ran = 125.0
        assert not look(signal, 130.0)
        with (
            writer(mount / "restic", CHECKPOINTS_GROUP) as restic,
            writer(mount / "work", 65534) as working,
        ):
            signs = look(signal, 140.0)
        assert [sign.active for sign in signs if f"pid {working.pid} " in sign.because] == [True]
        assert not [sign for sign in signs if f"pid {restic.pid} " in sign.because]
        # By then its last bytes are on the disk.
        assert not look(signal, 125.0 + disk.WRITEBACK + 11)
        subprocess.run(write, check=True, capture_output=True)
        assert [sign.active for sign in look(signal, 190.0)] == [True]
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@contextmanager
def writer(path: Path, group: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of the account that has written 16 MB to the disk."""
    script = (
        "import os, sys; file = int(sys.argv[1]); os.write(file, os.urandom(16 << 20));"
        "os.fsync(file); print(flush=True); sys.stdin.read()"
    )
    with (
        path.open("wb") as file,
        subprocess.Popen(
            ["/usr/bin/python3", "-c", script, str(file.fileno())],
            pass_fds=[file.fileno()],
            user=65534,
            group=group,
            extra_groups=[],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.stdin.close()


@pytest.mark.root
def test_checkpoints_do_not_count_however_busy() -> None:
    """A process with the group of checkpoints, which no other process can have."""
    signal = processes.cpu(0.05, ())
    look(signal, 100.0)
    process = subprocess.Popen(["sh", "-c", SPIN], user=65534, group=CHECKPOINTS_GROUP)
    other = subprocess.Popen(["sh", "-c", SPIN], user=65534, group=65534)
    try:
        wait_for_cpu(process.pid, 50)
        wait_for_cpu(other.pid, 50)
        signs = look(signal, 101.0)
    finally:
        for each in (process, other):
            each.kill()
            each.wait()
    assert [sign for sign in signs if f"pid {process.pid} " in sign.because] == []
    assert [sign for sign in signs if f"pid {other.pid} " in sign.because]
