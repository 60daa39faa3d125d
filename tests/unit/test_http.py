"""HTTP with other implementations: sockets, curl and the standard library."""

import asyncio
import http.client
import http.server
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from agent.bus import Bus
from agent.events import ErrorUnhandled, Event
from agent.http.fetch import LONGEST_ANSWER, FetchError, fetch
from agent.http.messages import Answer, BadRequest, Request
from agent.http.routes import Routes
from agent.http.server import LONGEST_HEAD, MOST_AHEAD, MOST_CONNECTIONS, Manners, Server, anybody

BODY = 1000


def refusal(problem: str, status: int) -> Answer:
    return Answer(problem.encode(), status, kind="text/plain")


class Serving:
    """A server in its own thread, and the requests of its handlers."""

    def __init__(
        self, keepalive: float = 60.0, origin: Callable[[socket.socket], int] = anybody
    ) -> None:
        self._origin = origin
        self.cancelled = threading.Event()
        self.waits = threading.Event()
        self.events: list[Event] = []
        self.steps = 0
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        self.port: int = listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._serve(listening, keepalive),)
        )
        self._thread.start()

    async def _serve(self, listening: socket.socket, keepalive: float) -> None:
        bus = Bus()
        bus.subscribe(self.events.append)
        routes = Routes(refusal)
        routes.add("GET", "/echo/{word}", self._echo)
        routes.add("POST", "/echo/{word}", self._echo)
        routes.add("GET", "/pieces", self._pieces)
        routes.add("GET", "/wait", self._wait)
        routes.add("GET", "/broken", self._broken)
        routes.add("GET", "/half", self._half)
        routes.add("GET", "/bad", self._bad)
        routes.add("GET", "/steps", self._steps)
        manners = Manners(keepalive, BODY, self._origin)
        self._task = asyncio.create_task(
            Server(routes.answer, refusal, manners, bus).serve(listening)
        )
        try:
            await self._task
        except asyncio.CancelledError:
            self.left = asyncio.all_tasks() - {asyncio.current_task()}

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        self._loop.close()
        assert not self.left, "no task without an owner"

    async def _echo(self, request: Request) -> Answer:
        said = f"{request.variables['word']} {request.query} ".encode() + request.body
        return Answer(said, kind="text/plain")

    async def _pieces(self, _: Request) -> Answer:
        return Answer(b"%d " % number * 1000 for number in range(1000))

    async def _wait(self, _: Request) -> Answer:
        self.waits.set()
        try:
            await asyncio.sleep(1000)
        finally:
            self.cancelled.set()
        raise AssertionError

    async def _broken(self, _: Request) -> Answer:
        raise RuntimeError("a fault")

    async def _half(self, _: Request) -> Answer:
        def pieces() -> Iterator[bytes]:
            yield b"the first half"
            raise RuntimeError("a fault in the middle")

        return Answer(pieces())

    async def _steps(self, _: Request) -> Answer:
        def step() -> None:
            self.steps += 1

        self._loop.call_soon(step)
        return Answer(b"%d" % self.steps, kind="text/plain")

    async def _bad(self, _: Request) -> Answer:
        raise BadRequest("not understood")


@pytest.fixture
def serving() -> Iterator[Serving]:
    server = Serving()
    yield server
    server.stop()


def said(port: int, sent: bytes) -> bytes:
    """Everything that the server sends until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def curl(*words: str) -> str:
    program = shutil.which("curl")
    assert program, "curl is among the packages that `make setup` installs"
    done = subprocess.run([program, "-sS", *words], capture_output=True, timeout=60, check=True)
    return done.stdout.decode()


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_gets_whole_and_streamed_answers(serving: Serving, version: str) -> None:
    base = f"http://127.0.0.1:{serving.port}"
    assert (
        curl(version, f"{base}/echo/a%2Fb%20c?x=1&y=%26&z")
        == "a/b c {'x': '1', 'y': '&', 'z': ''} "
    )
    pieces = "".join(f"{number} " * 1000 for number in range(1000))
    assert curl(version, f"{base}/pieces") == pieces
    assert curl(version, "-d", "hello", f"{base}/echo/w") == "w {} hello"


def test_curl_may_ask_first_and_send_in_chunks(serving: Serving) -> None:
    url = f"http://127.0.0.1:{serving.port}/echo/w"
    words = ("-v", "-H", "Expect: 100-continue", "--expect100-timeout", "50", "-d", "x" * BODY)
    assert curl(*words, url).endswith("x" * BODY)
    assert curl("-H", "Transfer-Encoding: chunked", "-d", "hello", url) == "w {} hello"


def test_head_has_the_header_of_get_and_no_body(serving: Serving) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=60)
    connection.request("HEAD", "/echo/w")
    answer = connection.getresponse()
    assert (answer.status, answer.read(), answer.headers["Content-Length"]) == (200, b"", "5")
    connection.request("GET", "/echo/w")  # on the same connection: nothing is left over
    assert connection.getresponse().read() == b"w {} "
    connection.close()


def test_requests_that_are_sent_ahead_are_answered_in_order(serving: Serving) -> None:
    words = [b"one", b"two", b"three"]
    asked = b"".join(b"GET /echo/%b HTTP/1.1\r\nHost: x\r\n\r\n" % word for word in words)
    heard = said(serving.port, asked + b"GET /pieces HTTP/1.0\r\n\r\n")
    assert [heard.index(word + b" {}") for word in words] == sorted(
        heard.index(word + b" {}") for word in words
    )
    assert heard.endswith(b"999 ")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /nowhere HTTP/1.0\r\n\r\n", b"404"),
        (b"GET /echo/a/b HTTP/1.0\r\n\r\n", b"404"),
        (b"GET /bad HTTP/1.0\r\n\r\n", b"400"),
        (b"DELETE /echo/w HTTP/1.0\r\n\r\n", b"405"),
        (b"GET /echo/w HTTP/1.1\r\n\r\n", b"400"),  # without Host (RFC 9112, 3.2)
        (b"\x16\x03\x01 TLS\r\n\r\n", b"400"),
        (b"GET /echo/w HTTP/1.0\r\nX: " + b"x" * LONGEST_HEAD, b"431"),
        (b"POST /echo/w HTTP/1.0\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001, b"413"),
        (b"HEAD /echo/w HTTP/1.0\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001, b"413"),
        (
            b"POST /echo/w HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"400",
        ),
        (b"GET /broken HTTP/1.0\r\n\r\n", b"500"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
    ],
)
def test_what_cannot_be_answered_is_refused_and_the_connection_ends(
    serving: Serving, sent: bytes, status: bytes
) -> None:
    assert said(serving.port, sent).split()[1] == status
    assert len(serving.events) == (status == b"500"), "only errors of ours are told"


def test_an_allowed_method_is_named(serving: Serving) -> None:
    assert b"Allow: GET, HEAD, POST\r\n" in said(serving.port, b"PUT /echo/w HTTP/1.0\r\n\r\n")


def test_an_error_of_ours_is_told_with_its_place(serving: Serving) -> None:
    said(serving.port, b"GET /broken HTTP/1.0\r\n\r\n")
    said(serving.port, b"rubbish\r\n\r\n")
    [event] = serving.events
    assert isinstance(event, ErrorUnhandled)
    assert "in _broken" in event.where


def test_half_an_answer_never_looks_whole(serving: Serving) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=60)
    connection.request("GET", "/half")
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        connection.getresponse().read()
    connection.close()


@pytest.mark.attack
def test_a_request_whose_client_has_gone_is_cancelled(serving: Serving) -> None:
    with socket.create_connection(("127.0.0.1", serving.port)) as connection:
        connection.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        assert serving.waits.wait(60)
        assert not serving.cancelled.is_set()
    assert serving.cancelled.wait(60)


@pytest.mark.attack
def test_requests_that_are_sent_ahead_hold_up_nobody_else(serving: Serving) -> None:
    """Between any two of them the event loop does its other work."""
    ahead = b"GET /steps HTTP/1.1\r\nHost: x\r\n\r\n" * 50
    ends = b"GET /steps HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = said(serving.port, ahead + ends)
    bodies = [part.partition(b"\r\n\r\n")[2] for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert [int(body) for body in bodies] == list(range(51))


@pytest.mark.attack
def test_connections_of_one_origin_push_out_its_own_oldest_and_nobody_elses() -> None:
    """On the control socket an origin is an account: others never use up root's connections."""
    origins = iter([1, *[2] * (MOST_CONNECTIONS + 1)])
    serving = Serving(origin=lambda _: next(origins))

    def answers(connection: socket.socket) -> bool:
        connection.settimeout(60)
        try:
            connection.sendall(b"GET /echo/w HTTP/1.1\r\nHost: x\r\n\r\n")
            return b"200" in connection.recv(4096)
        except ConnectionError:
            return False

    def connect() -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", serving.port))
        assert answers(connection)  # it was accepted before the next one comes
        return connection

    try:
        roots = connect()
        others = [connect() for _ in range(MOST_CONNECTIONS + 1)]
        assert not answers(others[0])
        assert all(map(answers, others[1:]))
        assert answers(roots)
        for each in (roots, *others):
            each.close()
    finally:
        serving.stop()


def test_the_end_waits_for_the_end_of_every_request() -> None:
    serving = Serving()
    with socket.create_connection(("127.0.0.1", serving.port)) as connection:
        connection.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        assert serving.waits.wait(60)
        serving.stop()
    assert serving.cancelled.is_set()


def test_a_client_that_sends_without_end_while_it_waits_is_cut(serving: Serving) -> None:
    with socket.create_connection(("127.0.0.1", serving.port), timeout=60) as connection:
        connection.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        assert serving.waits.wait(60)
        with pytest.raises(OSError):
            for _ in range(1000):
                connection.sendall(b"x" * MOST_AHEAD)
    assert serving.cancelled.wait(60)


@pytest.mark.parametrize(
    "sent", [b"", b"GET /echo", b"POST /echo/w HTTP/1.0\r\nContent-Length: 9\r\n\r\nx"]
)
def test_a_client_that_never_finishes_asking_is_cut(sent: bytes) -> None:
    serving = Serving(keepalive=0.2)
    assert said(serving.port, sent) == b""
    serving.stop()


class _There(http.server.BaseHTTPRequestHandler):
    """A server of the standard library."""

    def do_GET(self) -> None:
        self.send_response(302 if self.path.startswith("/to") else 200)
        self.send_header("Location", self.path.replace("/to", ""))
        self.end_headers()
        self.wfile.write(b"x" * (LONGEST_ANSWER + 1 if self.path == "/long" else 3))

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


class _OnUnixSocket(http.server.ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        return self.socket.accept()[0], ("", 0)


def against(server: http.server.HTTPServer, ask: Callable[[], Coroutine[None, None, None]]) -> None:
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asyncio.run(ask())
        server.shutdown()


def test_asking_a_server_of_the_standard_library() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _There)
    base = f"http://127.0.0.1:{server.server_port}"

    async def ask() -> None:
        assert (await fetch("GET", base)).body == b"xxx"
        assert (await fetch("GET", f"{base}/long", body=False)).status == 200
        assert (await fetch("GET", f"{base}/to/a?b")).location == "/a?b"
        assert (await fetch("GET", f"{base}/to/a?b", redirects=True)).status == 200
        with pytest.raises(FetchError, match="more than"):
            await fetch("GET", f"{base}/long")

    against(server, ask)


ASK_AS_THE_AGENT = """
import sys
from agent.__main__ import _leave_out_tls
_leave_out_tls()
import asyncio
from agent.http.fetch import fetch
print(asyncio.run(fetch("GET", sys.argv[1])).status)
"""


def test_asking_over_tls_though_the_agent_starts_without_it(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    make = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2"]
    make += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    make += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"https://localhost:{server.server_port}/"
    said = subprocess.run(
        [sys.executable, "-c", ASK_AS_THE_AGENT, url],
        env=os.environ | {"SSL_CERT_FILE": str(certificate)},
        capture_output=True,
        text=True,
        check=False,
    )
    server.shutdown()
    assert said.stdout == "200\n", said.stderr


def test_asking_on_a_unix_socket(tmp_path: Path) -> None:
    place = str(tmp_path / "api")

    async def ask() -> None:
        reply = await fetch("POST", "http://localhost/v1/x", unix=place)
        assert (reply.status, reply.body) == (200, b"xxx")

    against(_OnUnixSocket(place, _There), ask)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "http://", "http://127.0.0.1:x/", "//127.0.0.1"]
)
def test_an_address_that_is_none_is_refused_in_words(url: str) -> None:
    with pytest.raises(FetchError):
        asyncio.run(fetch("GET", url))
