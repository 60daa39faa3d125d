"""The peer of the gate: `sshd -D` with a real fail2ban, as Debian ships them.

fail2ban reads a log file with dates, as syslog writes it; here a thread imitates syslog. Its ban is
a set of nftables, refused with a TCP reset so that an attacker sees it at once.
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.contenders import WORK, needed
from tests.claims import free_port
from tests.support import Key, until

TABLE = f"swarm-bench{os.getpid()}"

_JAIL = """
[DEFAULT]
backend = pyinotify
banaction = bench
allowipv6 = no
[sshd]
enabled = true
filter = sshd
logpath = {log}
maxretry = 3
findtime = 600
bantime = 600
"""

_ACTION = f"""
[Definition]
actionstart =
actionstop =
actioncheck =
actionban = nft add element inet {TABLE} banned {{ <ip> }}
actionunban = nft delete element inet {TABLE} banned {{ <ip> }}
"""

_RULES = """
table inet {table} {{
  set banned {{ type ipv4_addr; }}
  chain input {{
    type filter hook input priority 0;
    tcp dport {port} ip saddr @banned reject with tcp reset
  }}
}}
"""


@contextmanager
def running(key: Key, address: str) -> Iterator[int]:
    """sshd on a port of `address`, guarded by fail2ban; the port. Raises `Unavailable`."""
    for program, package in (("fail2ban-server", "fail2ban"), ("nft", "nftables")):
        needed(program, package)
    folder = WORK / "fail2ban"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    port = free_port()
    log = folder / "auth.log"
    log.touch()
    rules = _RULES.format(table=TABLE, port=port)
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        with _sshd(folder, key, address, port, log), _fail2ban(folder, log):
            yield port
    finally:
        subprocess.run(["nft", "delete", "table", "inet", TABLE], check=True)


@contextmanager
def _sshd(folder: Path, key: Key, address: str, port: int, log: Path) -> Iterator[None]:
    host_key = folder / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True)
    keys = folder / "authorized_keys"
    keys.write_text(key.public + "\n")
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress {address}:{port}\nHostKey {host_key}\nAuthorizedKeysFile {keys}\n"
        f"UsePAM no\nPidFile none\nStrictModes no\nLogLevel VERBOSE\n"
    )
    os.makedirs("/run/sshd", exist_ok=True)
    command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    thread = threading.Thread(target=_syslog, args=(process, log), daemon=True)
    thread.start()
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        thread.join()


def _syslog(process: "subprocess.Popen[str]", log: Path) -> None:
    assert process.stderr is not None
    with log.open("a") as file:
        for line in process.stderr:
            stamp = time.strftime("%b %d %H:%M:%S")
            file.write(f"{stamp} bench sshd[{process.pid}]: {line.rstrip()}\n")
            file.flush()


def server(folder: Path, log: Path) -> list[str]:
    """Write fail2ban's configuration; the command of its server, which reads `log`."""
    config = folder / "config"
    shutil.copytree("/etc/fail2ban", config)
    shutil.rmtree(config / "jail.d", ignore_errors=True)
    (config / "jail.local").write_text(_JAIL.format(log=log))
    (config / "action.d" / "bench.conf").write_text(_ACTION)
    paths = ["-c", str(config), "-s", str(folder / "socket"), "-p", str(folder / "pid")]
    (config / "fail2ban.local").write_text("[Definition]\ndbfile = None\n")
    says = ["--logtarget", str(folder / "log"), "--loglevel", "INFO"]
    # -x: remains of a killed server must not prevent the next start.
    return ["fail2ban-server", "-x", "-f", *paths, *says]


@contextmanager
def _fail2ban(folder: Path, log: Path) -> Iterator[None]:
    process = subprocess.Popen(
        server(folder, log),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        own = folder / "log"
        until(lambda: own.exists() and "Jail 'sshd' started" in own.read_text(), "fail2ban's jail")
        yield
    finally:
        process.terminate()
        process.wait()
