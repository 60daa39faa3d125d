"""The egress rules, seen from a machine in a network namespace with a small internet."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import BoxMaker
from tests.support import Box, until

pytestmark = pytest.mark.root

ALLOWED, OTHER = "203.0.113.10", "203.0.113.66"
ALLOWED6, OTHER6, PRIVATE6 = "2001:db8::10", "2001:db8::66", "fdaa::1"

SERVE = """
import selectors, socket, sys
waiting = selectors.DefaultSelector()
for port in (22, 25, 80, 443, 9999):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    waiting.register(listener, selectors.EVENT_READ)
print("serves", flush=True)
while True:
    for key, _ in waiting.select():
        connection, _ = key.fileobj.accept()
        connection.sendall(b"hello")
        connection.close()
"""


HOOK = """
import http.server, socket

class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(self.path, body.decode(), flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

Server(("::", 8080), Hook).serve_forever()
"""


class Internet:
    """Hosts behind one link, each with the same ports, and dnsmasq as the name server."""

    def __init__(self) -> None:
        self.inside, self.outside = f"swarmi{os.getpid()}", f"swarmo{os.getpid()}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def up(self) -> "Internet":
        for name in (self.inside, self.outside):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip(
            "-n",
            self.outside,
            "link",
            "add",
            "v",
            "type",
            "veth",
            "peer",
            "name",
            "v",
            "netns",
            self.inside,
        )
        for name, addresses in (
            (self.outside, ("10.88.0.1/24", "fd88::1/64", "fdaa::1/64")),
            (self.inside, ("10.88.0.2/24", "fd88::2/64", "fdaa::2/64")),
        ):
            for address in addresses:
                nodad = ("nodad",) if ":" in address else ()
                ip("-n", name, "addr", "add", address, "dev", "v", *nodad)
            ip("-n", name, "link", "set", "v", "up")
        for address in (ALLOWED, OTHER, ALLOWED6, OTHER6):
            ip("-n", self.outside, "addr", "add", address, "dev", "lo")
        ip("-n", self.inside, "route", "add", "default", "via", "10.88.0.1")
        ip("-n", self.inside, "route", "add", "default", "via", "fd88::1")
        etc = Path("/etc/netns", self.inside)
        etc.mkdir(parents=True)
        (etc / "resolv.conf").write_text("nameserver 10.88.0.1\n")
        self._start([sys.executable, "-c", SERVE])
        self._name_server()
        return self

    def _name_server(self) -> None:
        hosts = [
            "--no-resolv",
            "--no-hosts",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--listen-address=10.88.0.1",
            "--bind-interfaces",
            "--pid-file=",
            "--user=root",
        ]
        entries = [
            ("allowed.example", ALLOWED),
            ("allowed.example", ALLOWED6),
            ("other.example", OTHER),
            ("other.example", OTHER6),
        ]
        self._start(["dnsmasq", *hosts, *(f"--host-record={n},{a}" for n, a in entries)])

    def _start(self, command: list[str]) -> None:
        where = ["ip", "netns", "exec", self.outside]
        self._processes.append(subprocess.Popen([*where, *command]))

    def take_messages(self, path: Path) -> None:
        """A webhook on port 8080 of each host; it writes messages to a file."""
        where = ["ip", "netns", "exec", self.outside]
        with path.open("wb") as taken:
            command = [*where, sys.executable, "-c", HOOK]
            self._processes.append(subprocess.Popen(command, stdout=taken, stderr=taken))

    def lose_names(self) -> None:
        """Stop the name server."""
        for process in self._processes:
            if "dnsmasq" in str(process.args):
                process.kill()
                process.wait()

    def down(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for name in (self.inside, self.outside):
            subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["rm", "-rf", f"/etc/netns/{self.inside}"], check=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def internet() -> Iterator[Internet]:
    made = Internet()
    try:
        yield made.up()
    finally:
        made.down()


class Walled:
    """A machine inside."""

    def __init__(self, box: Box, internet: Internet, **environ: str) -> None:
        self.box = box
        self._enter = ["ip", "netns", "exec", internet.inside]
        settings = {"SWARM_EGRESS_ALLOW": "allowed.example"} | environ
        box.start(settings, prefix=self._enter)

    def run(self, script: str) -> "subprocess.CompletedProcess[str]":
        """Run a command over SSH, from the machine's own network."""
        self.box.event("boot.listening")
        command = [*self._enter, *self.box.ssh_command(script)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def reaches(self, host: str, port: int) -> bool:
        script = (
            f'python3 -c \'import socket; print(socket.create_connection(("{host}", {port}), 10)'
            ".recv(5))'"
        )
        return self.run(script).stdout == "b'hello'\n"

    def ready(self) -> "Walled":
        """Wait until the allowed names have addresses."""
        until(lambda: self.reaches("allowed.example", 9999), "the allowed host")
        return self


def test_strict_lets_only_what_is_allowed_through(make_box: BoxMaker, internet: Internet) -> None:
    walled = Walled(make_box(), internet, SWARM_EGRESS="strict").ready()
    assert walled.reaches(ALLOWED6, 443)
    assert walled.reaches(PRIVATE6, 9999)  # the private network
    assert not walled.reaches(OTHER, 443)
    assert not walled.reaches(OTHER6, 443)
    assert not walled.reaches("other.example", 22)
    # Names still resolve, and the loopback works.
    assert OTHER in walled.run("getent ahostsv4 other.example").stdout
    refused = walled.box.event("egress.refused")
    assert f"{OTHER} tcp/443" in refused["destinations"]
    assert walled.box.event("egress.applied")["mode"] == "strict"
    said = walled.run("swarm-agent egress")
    assert said.returncode == 0, said
    assert re.search(rf"allowed\.example +.*{ALLOWED}", said.stdout)
    assert re.search(rf"{OTHER} tcp/443 +\d", said.stdout)


def test_refused_connections_fail_at_once_and_root_alone_changes_rules(
    make_box: BoxMaker, internet: Internet
) -> None:
    walled = Walled(make_box(), internet, SWARM_EGRESS="strict").ready()
    said = walled.run(f"python3 -c 'import socket; socket.create_connection((\"{OTHER}\", 80))'")
    assert "No route to host" in said.stderr or "unreachable" in said.stderr
    assert walled.run("/usr/sbin/nft flush ruleset").returncode != 0
    assert not walled.reaches(OTHER, 80)


def test_standard_lets_the_web_and_ssh_through(make_box: BoxMaker, internet: Internet) -> None:
    walled = Walled(make_box(), internet, SWARM_EGRESS="standard").ready()
    for port in (22, 80, 443):
        assert walled.reaches(OTHER, port), port
    assert walled.reaches(OTHER6, 443)
    for port in (25, 9999):
        assert not walled.reaches(OTHER, port), port


def test_open_is_open(make_box: BoxMaker, internet: Internet) -> None:
    walled = Walled(make_box(), internet).ready()
    assert walled.reaches(OTHER, 25)


def test_strict_that_cannot_be_applied_is_a_boot_error(make_box: BoxMaker, tmp_path: Path) -> None:
    box = make_box()
    nothing = "mount -t tmpfs none /usr/sbin && touch /usr/sbin/sshd && chmod 755 /usr/sbin/sshd"
    box.start({"SWARM_EGRESS": "strict", "SWARM_SSHD": "/bin/true"}, before=nothing)
    assert box.machine.wait(30) != 0
    assert "install nftables" in box.event("boot.failed")["problem"]


def test_services_start_after_the_rules(
    make_box: BoxMaker, internet: Internet, tmp_path: Path
) -> None:
    folder = tmp_path / "services.d"
    folder.mkdir(mode=0o755)
    probe = (
        "for h in allowed.example other.example; do "
        "python3 -c 'import socket,sys; socket.create_connection((sys.argv[1], 443), 10)' $h "
        "2>/dev/null && echo reached $h || echo refused $h; done"
    )
    (folder / "t.toml").write_text(
        f'[service.probe]\ncommand = ["sh", "-c", """{probe}"""]\noneshot = true\n'
    )
    walled = Walled(make_box(), internet, SWARM_EGRESS="strict", SWARM_SERVICES_DIR=str(folder))
    walled.box.event("service.said", line="reached allowed.example")
    walled.box.event("service.said", line="refused other.example")


def test_the_rules_leave_with_the_machine(make_box: BoxMaker, internet: Internet) -> None:
    walled = Walled(make_box(), internet, SWARM_EGRESS="strict").ready()
    listing = ["ip", "netns", "exec", internet.inside, "nft", "list", "tables"]
    assert "swarm_egress" in subprocess.run(listing, capture_output=True, text=True).stdout
    assert walled.box.stop() == 0
    assert subprocess.run(listing, capture_output=True, text=True).stdout == ""


def test_without_a_name_server_logins_are_as_ever_and_it_shows(
    make_box: BoxMaker, internet: Internet
) -> None:
    internet.lose_names()
    walled = Walled(make_box(), internet, SWARM_EGRESS="strict")
    assert walled.run("echo in").stdout == "in\n"
    assert "allowed.example" in walled.box.event("egress.unresolved")["names"]
    until(
        lambda: "names without an address" in walled.box.agent("status").stdout, "it in the status"
    )
    assert not walled.reaches(ALLOWED, 443)
    assert walled.reaches(PRIVATE6, 9999)


def test_a_reload_keeps_rules_and_addresses(make_box: BoxMaker, internet: Internet) -> None:
    """It does not wait for look-ups: what worked before works at once."""
    walled = Walled(make_box(), internet, SWARM_EGRESS="strict").ready()
    internet.lose_names()
    done = walled.box.agent("reload")
    assert done.returncode == 0, done
    assert walled.reaches(ALLOWED, 9999)
    assert not walled.reaches(OTHER, 443)


@pytest.mark.parametrize("host", ["other.example", OTHER, f"[{OTHER6}]"])
def test_strict_lets_messages_out_to_where_they_are_sent(
    make_box: BoxMaker, internet: Internet, tmp_path: Path, host: str
) -> None:
    taken = tmp_path / "taken"
    internet.take_messages(taken)
    url = f"json://{host}:8080/secret-path"
    walled = Walled(make_box(), internet, SWARM_EGRESS="strict", SWARM_NOTIFY=url).ready()

    def arrives() -> bool:
        command = ["ip", "netns", "exec", internet.inside]
        words, environ = walled.box.agent_command("notify", "--test")
        said = subprocess.run([*command, *words], env=environ, capture_output=True, check=False)
        return said.returncode == 0 and "this is a test" in taken.read_text()

    until(arrives, f"a message; {walled.box.said()}")
    assert "/secret-path" in taken.read_text()
    # Only its host is added to the allowed destinations.
    assert walled.reaches("allowed.example", 443)
    allowed = {OTHER, OTHER6} if host == "other.example" else {host.strip("[]")}
    for each in (OTHER, OTHER6):
        assert walled.reaches(each, 443) == (each in allowed), each
