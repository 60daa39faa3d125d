"""Probes of services against a real HTTP server: an unexpected answer is not a success."""

import http.server
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.services import Services
from tests.support import until

pytestmark = pytest.mark.root


class _Answers(http.server.BaseHTTPRequestHandler):
    """`/ok`, redirects to https, to nowhere, to `/ok`; and no HTTP at all."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        targets = {
            "/tls": "https://127.0.0.1:1/",
            "/round": "/round",
            "/odd": "ftp://[",
            "/to-ok": "/ok",
        }
        if self.path == "/garbage":
            self.wfile.write(b"\0\1\2 no HTTP\r\n\r\n")
            return
        if self.path in targets:
            self.send_response(301)
            self.send_header("Location", targets[self.path])
        else:
            self.send_response(200 if self.path == "/ok" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as serving:
        serving.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


ODD = ["/tls", "/round", "/odd", "/garbage", "/missing"]


@pytest.mark.parametrize("redirects", ["", ", redirects = true"])
def test_an_unexpected_answer_is_no_readiness(
    services: Services, server: http.server.ThreadingHTTPServer, redirects: str
) -> None:
    base = f"http://127.0.0.1:{server.server_port}"
    text = "".join(
        f'[service.s{number}]\ncommand = ["sleep", "1000"]\nready_timeout = "25s"\n'
        f'ready = {{http = "{base}{path}"{redirects}}}\n'
        for number, path in enumerate(ODD)
    )
    services.boot(text)
    asked: list[str] = server.asked  # type: ignore[attr-defined]
    until(lambda: all(asked.count(path) >= 3 for path in ODD), "each is asked again and again")
    assert {entry["state"] for entry in services.all().values()} == {"starting"}
    if not redirects:
        assert "a redirect to https://127.0.0.1:1/" in services.all()["s0"]["detail"]


def test_a_redirect_is_followed_when_it_is_asked_for(
    services: Services, server: http.server.ThreadingHTTPServer
) -> None:
    url = f"http://127.0.0.1:{server.server_port}/to-ok"
    services.boot(
        f'[service.a]\ncommand = ["sleep", "1000"]\nready = {{http = "{url}", redirects = true}}\n'
    )
    services.becomes("a", "running")


@pytest.mark.parametrize("path", ODD)
def test_an_unexpected_answer_is_a_failure_of_health_and_the_service_starts_again(
    services: Services, server: http.server.ThreadingHTTPServer, path: str
) -> None:
    url = f"http://127.0.0.1:{server.server_port}{path}"
    services.boot(
        f'[service.a]\ncommand = ["sleep", "1000"]\nbackoff = "10ms"\n'
        f'health = {{http = "{url}", interval = "50ms", failures = 2}}\n'
    )
    until(lambda: services.all()["a"]["restarts"] >= 2, "it is started again")
    until(lambda: len(services.box.events("service.started")) >= 2, "both starts in the log")


def test_definitions_with_a_byte_order_mark_are_read(services: Services) -> None:
    """Windows' Notepad saves such files."""
    services.boot('\ufeff[service.a]\r\ncommand = ["sleep", "1000"]\r\n')
    services.becomes("a", "running")


def test_settings_with_a_byte_order_mark_are_read(services: Services) -> None:
    config = services.folder.parent / "agent.toml"
    config.write_text('\ufeffidle_timeout = "77m"\r\n', newline="")
    services.boot("", {"SWARM_CONFIG": str(config)})
    command, environ = services.box.agent_command("check")
    said = subprocess.run(
        command,
        env=environ | {"SWARM_CONFIG": str(config)},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    [line] = [line for line in said.splitlines() if line.startswith("SWARM_IDLE_TIMEOUT ")]
    assert str(config) in line
