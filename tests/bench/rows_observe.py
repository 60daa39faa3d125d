"""The cost of scrapes for logins."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.contenders import Contender
from tests.bench.rows_login import timed_login
from tests.bench.table import AGENT, Row, Samples
from tests.support import until

SCRAPES_A_SECOND = 1000
CONNECTIONS = 10


def scraped(contender: Contender, runs: int) -> Row:
    """A login during a thousand scrapes a second, compared with a quiet one."""
    port = int(dict(contender.environ)["SWARM_HTTP_LISTEN"].rpartition(":")[2])
    quiet: list[float] = []
    loaded: list[float] = []
    with contender.running():
        subprocess.run(contender.ssh("true"), check=True)
        until(lambda: _answers(port), "HTTP")
        for _ in range(runs):
            quiet += [timed_login(contender) for _ in range(10)]
            with _scrapes(port) as counted:
                began = time.monotonic()
                loaded += [timed_login(contender) for _ in range(10)]
                rate = counted[0] / (time.monotonic() - began)
    samples = (Samples(AGENT, tuple(loaded)), Samples("quiet", tuple(quiet)))
    row = Row("login while metrics are scraped", "ms", samples)
    ratio = row.ratio("quiet") or 0.0
    verdict = "met" if ratio <= 1.1 else "MISSED"
    note = f"{rate:.0f} scrapes a second were answered; {ratio:.2f} x quiet, ≤ 1.1: {verdict}"
    return Row(row.name, row.unit, samples, note=note)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


@contextmanager
def _scrapes(port: int) -> Iterator[list[int]]:
    """Scrape at a steady rate until the block ends; counts the answers."""
    ended = threading.Event()
    counted = [0]

    def run() -> None:
        connections = [_Scraper(port) for _ in range(CONNECTIONS)]
        began = time.monotonic()
        while not ended.is_set():
            due = began + counted[0] / SCRAPES_A_SECOND
            time.sleep(max(0.0, due - time.monotonic()))
            connections[counted[0] % CONNECTIONS].scrape()
            counted[0] += 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield counted
    finally:
        ended.set()
        thread.join()


class _Scraper:
    """One kept-alive connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)

    def scrape(self) -> None:
        self._socket.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._socket.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            int(line.split()[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        missing = length - len(body)
        while missing > 0:
            missing -= len(self._socket.recv(65536))
