"""Neither the login account nor a stranger can make the agent grow without bound."""

import socket
import threading
from pathlib import Path

import pytest

from tests.conftest import BoxMaker
from tests.services import Services
from tests.support import Box, ready, until
from tests.system.test_observe import metric, serves_http

pytestmark = pytest.mark.attack

FILES_COME_AND_GO = """
import os
for number in range(150_000):
    name = "x" * 240 + str(number)
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    os.unlink(name)
print("done")
"""


@pytest.mark.root
@pytest.mark.xdist_group("heavy")
def test_files_that_come_and_go_in_the_home_cost_the_agent_nothing(make_box: BoxMaker) -> None:
    box = ready(make_box().boot({"SWARM_HOME_LINKS": ".gitconfig"}))
    box.ssh("echo new >.gitconfig")
    is_link = "while ! test -L .gitconfig; do sleep 0.1; done"
    assert box.ssh(is_link).returncode == 0
    Path(f"/proc/{box.machine.init}/clear_refs").write_text("5")  # the peak is the present
    before = resident(box)
    assert box.ssh(f"exec python3 -c '{FILES_COME_AND_GO}'".replace("'x'", '"x"')).stdout
    assert resident(box, "VmHWM") - before < 16 << 20
    # And real changes are noticed anyway.
    assert box.ssh(f"echo newer >.g && mv .g .gitconfig && {is_link}; cat .gitconfig").stdout


LONG_LINES = """
[service.long]
command = ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\\\0' x | fold -w 60000; exec sleep 1000"]
"""


def resident(box: Box, which: str = "VmRSS") -> int:
    """Bytes of memory that the agent uses now; with `VmHWM`, its peak."""
    status = Path(f"/proc/{box.machine.init}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if which in line) << 10


def control(box: Box) -> str:
    """The control socket's path outside the machine."""
    if box.machine.namespaces:
        return f"/proc/{box.machine.init}/root/run/swarm/agent.sock"
    return str(box.folder / "run" / "agent.sock")


def ask(box: Box, request: str, times: int = 1) -> socket.socket:
    """Send a request on the control socket without reading the answer."""
    asking = socket.socket(socket.AF_UNIX)
    asking.connect(control(box))
    asking.sendall(f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * times)
    return asking


@pytest.mark.root
@pytest.mark.xdist_group("heavy")
def test_long_lines_and_answers_that_nobody_reads_are_bounded(services: Services) -> None:
    box = services.boot(LONG_LINES, {"SWARM_LOG_LEVEL": "warning"}).box
    services.becomes("long", "running")
    before = resident(box)
    # Several answers on each connection: more than a socket buffers.
    unread = [ask(box, "GET /v1/services/long/logs", 10) for _ in range(60)]
    assert box.ssh("echo in").stdout == "in\n"
    until(lambda: serves_http(box), "HTTP")
    assert resident(box) - before < 40 << 20
    # A client that does not read is disconnected.
    for each in unread:
        each.settimeout(60)
    until(lambda: all(is_cut(each) for each in unread), "an end of those who do not read", 60)
    assert box.ssh("echo in").stdout == "in\n"


def is_cut(asking: socket.socket) -> bool:
    try:
        return asking.send(b"\r\n") < 0
    except OSError:
        return True


ENDPOINTS = (
    *("/v1/health", "/v1/status", "/v1/keys", "/v1/egress", "/v1/sessions", "/v1/history"),
    *("/v1/usage", "/v1/bans", "/v1/idle", "/v1/leases", "/v1/services"),
    "/v1/services/quiet/logs",
    "/v1/services/quiet/logs?after=0&wait=8",
)


def test_no_task_is_left_of_any_request_that_was_abandoned(services: Services) -> None:
    box = services.boot('[service.quiet]\ncommand = "sleep 1000"\n').box
    services.becomes("quiet", "running")
    until(lambda: serves_http(box), "HTTP")
    before = metric(box, "swarm_tasks")
    for path in ENDPOINTS:
        for _ in range(20):
            ask(box, f"GET {path}").close()
    until(lambda: metric(box, "swarm_tasks") <= before + 1, "the end of all of them")


def test_polls_that_time_out_leave_nothing(services: Services) -> None:
    box = services.boot('[service.quiet]\ncommand = "sleep 1000"\n').box
    services.becomes("quiet", "running")
    until(lambda: serves_http(box), "HTTP")
    before = metric(box, "swarm_tasks")

    def poll() -> None:
        with ask(box, "GET /v1/services/quiet/logs?after=0&wait=0.05") as asking:
            assert b"200 OK" in asking.recv(4096)

    threads = [threading.Thread(target=poll) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: metric(box, "swarm_tasks") <= before + 1, "the end of all of them")


def test_a_storm_of_leases_is_summed_up(box: Box) -> None:
    ready(box)
    body = '{"name": "storm", "seconds": 100}'
    order = (
        f"POST /v1/leases HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(control(box))
        for _ in range(200):
            asking.sendall(order)
            assert b"200 OK" in asking.recv(4096)
    assert box.stop() == 0
    assert len(box.events("lease.taken")) == 60
    assert box.event("log.summed", of="lease.taken")["lines"] == 140
