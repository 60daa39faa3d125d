"""The status page in Chromium: its content, in several widths and colour schemes.

The tests compare the browser's DOM, never pixels. They make their own reports, so that every state
can be shown; one test uses a real machine.
"""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import agent.observe.http
from tests.support import Box, Client, ready

PAGE = Path(agent.observe.http.__file__).with_name("page.html")
SLOT = 600
END = int(time.time()) // SLOT * SLOT

MEASURE = """
<script>
setTimeout(() => {
  const of = (name) => getComputedStyle(document.body)[name];
  const broken = [...document.querySelectorAll(".facts b")].filter(
    (each) => each.getClientRects().length > 1 || each.scrollWidth > each.parentNode.clientWidth);
  document.body.dataset.measured = JSON.stringify({
    wide: document.documentElement.scrollWidth, window: innerWidth, broken: broken.length,
    paper: of("backgroundColor"), ink: of("color"),
    cards: getComputedStyle(document.querySelector("#signals tr:last-child")).display,
    opacity: getComputedStyle(document.querySelector("main")).opacity,
  });
}, MILLISECONDS);
</script>
"""

FRAME = """
<iframe src="/page" width="WIDTH" height="1500" style="border: 0"></iframe>
<script>
setTimeout(() => {
  const inside = document.querySelector("iframe").contentDocument.documentElement.outerHTML;
  document.documentElement.innerHTML = inside;
}, MILLISECONDS + 500);
</script>
"""
"""A window has a minimum width, a frame has none. Finally the frame's content replaces the page."""


def report(sessions: int = 0, **changes: object) -> dict[str, object]:
    """A machine's report with so many sessions."""
    now = time.time()
    signal = {"on": True, "because": "", "problem": None, "seen": []}
    return {
        "version": "1.2.3",
        "name": "my-swarm",
        "region": "ams",
        "at": now,
        "user": "dev",
        "awake_since": now - 4000,
        "healthy": True,
        "problems": {},
        "notices": [],
        "failures": 0,
        "latest_failure": "",
        "reloads": 0,
        "idle": {
            "state": "awake",
            "because": "",
            "sleeps_in": 1500.0,
            "mode": "stop",
            "awake": 4000.0,
            "signals": [
                signal | {"signal": "login", "idle": 5.0, "because": "ann logged in"},
                signal | {"signal": "lease", "idle": None},
            ],
            "leases": [],
        },
        "sessions": [
            {
                "id": f"{number:08x}",
                "user": "dev",
                "key": f"key{number}",
                "fingerprint": "SHA256:x",
                "client": "2001:db8:1111:2222:3333:4444:5555:6666",
                "since": now - 300 * number,
                "idle": 3.0,
                "bytes_in": 1000,
                "bytes_out": 99_000_000,
                "terminals": [],
                "pid": 1,
            }
            for number in range(sessions)
        ],
        "services": [service("web", "running"), service("db", "running")],
        "bans": 0,
        "latest_bans": [],
        "keys": ["ann"],
        "volume": {"name": "/workspace", "size": 10 << 30, "free": 3 << 30},
        "memory": {"name": "memory", "size": 2 << 30, "free": 1 << 30},
        "budget_hours": 160.0,
        "used_hours": 38.4,
    } | changes


def service(name: str, state: str, detail: str = "") -> dict[str, object]:
    return {
        "name": name,
        "state": state,
        "detail": detail,
        "since": time.time() - 60,
        "started": None,
        "pid": None,
        "restarts": 3,
        "command": [],
        "user": "dev",
    }


def day(awake: dict[int, float], sessions: int = 0, failures: int = 0) -> list[dict[str, object]]:
    """The slots of a day: seconds awake by slot, with so many sessions and failures while awake."""
    return [
        {
            "start": END - 86400 + SLOT * (slot + 1),
            "awake": awake.get(slot, 0.0),
            "sessions": sessions if slot in awake else 0,
            "failures": failures if slot in awake else 0,
        }
        for slot in range(144)
    ]


@contextmanager
def served(
    status: dict[str, object],
    chart: list[dict[str, object]] | None = None,
    *,
    width: int = 1280,
    answers: int = 1000,
    measured_after: int = 1500,
) -> Iterator[str]:
    """Serve the page and this report, at most so often; yields its address."""
    page = PAGE.read_text() + MEASURE.replace("MILLISECONDS", str(measured_after))
    frame = FRAME.replace("MILLISECONDS", str(measured_after)).replace("WIDTH", str(width))
    body = json.dumps({"status": status, "chart": chart or day({143: 600.0})})
    left = [answers]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_report = self.path.startswith("/status.json")
            left[0] -= is_report
            self.send_response(503 if is_report and left[0] < 0 else 200)
            self.send_header("Content-Type", "application/json" if is_report else "text/html")
            self.end_headers()
            html = page if self.path == "/page" else frame
            self.wfile.write((body if is_report else html).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def chromium(url: str, folder: Path, *, dark: bool = False, budget: int = 3000) -> str:
    """The page in Chromium after its scripts ran.

    It is run again if it exits before the page has measured itself: on a busy computer its virtual
    time runs out while the page is still loading.
    """
    command = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", f"--user-data-dir={folder}", f"--virtual-time-budget={budget}"),
        *([] if not dark else ["--blink-settings=preferredColorScheme=0"]),
        *("--window-size=1400,1600", "--dump-dom", url),
    ]
    for _ in range(5):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
        assert done.returncode == 0, done.stderr
        if "data-measured=" in done.stdout:
            break
    return done.stdout


def measured(page: str) -> dict[str, Any]:
    found = re.search(r'data-measured="([^"]*)"', page)
    assert found is not None, page
    values: dict[str, Any] = json.loads(found[1].replace("&quot;", '"'))
    return values


def rows(page: str, table: str) -> int:
    inside = page.partition(f'id="{table}"')[2].partition("</table>")[0]
    return inside.count("<tr>")


def brightness(colour: str) -> float:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


@pytest.mark.parametrize("sessions", [0, 3, 40])
@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (768, False), (1280, True)])
def test_the_page_fits_and_can_be_read(
    tmp_path: Path, width: int, dark: bool, sessions: int
) -> None:
    with served(report(sessions), width=width) as url:
        page = chromium(url, tmp_path, dark=dark)
    found = measured(page)
    assert found["window"] == width
    assert found["wide"] <= width
    assert found["broken"] == 0
    assert found["cards"] == ("block" if width == 390 else "table-row")
    dim, bright = (found["paper"], found["ink"]) if dark else (found["ink"], found["paper"])
    assert brightness(bright) - brightness(dim) > 180
    assert rows(page, "sessions") == (sessions or 1)
    assert ('id="all" type="button" hidden' in page) == (sessions < 40)


def test_name_region_version_and_outlook_are_at_the_top(tmp_path: Path) -> None:
    with served(report()) as url:
        page = chromium(url, tmp_path)
    assert '<h1 id="name">my-swarm</h1>' in page
    assert '<span id="state" role="status" class="good">awake</span>' in page
    assert '<span id="where" class="dim">ams</span>' in page
    assert '<p id="until">sleeps in 25 min unless something happens</p>' in page
    assert "swarm-agent 1.2.3" in page
    headings = re.findall(r"<h2>([A-Za-z ]+?) ?<", page)
    assert headings[0] == "The last day"
    assert {"Sessions", "Services", "Why it is awake", "Bans"} <= set(headings)


def test_what_failed_is_seen_first(tmp_path: Path) -> None:
    notice = {"part": "state", "since": time.time() - 120, "says": "kept for this run only"}
    services = [service("web", "running"), service("db", "failed", "exited with 1")]
    with served(report(services=services, notices=[notice])) as url:
        page = chromium(url, tmp_path)
    assert 'class="bad">awake, 1 service failed</span>' in page
    alerts = re.findall(r'<li class="(\w+)"><b>([^<]*)</b><span>([^<]*)', page)
    assert alerts == [
        ("bad", "service db", " failed: exited with 1"),
        ("warn", "state", " kept for this run only (2 min ago)"),
    ]
    assert page.index('<td data-name="service">db') < page.index('<td data-name="service">web')


def test_a_lease_is_what_the_page_says(tmp_path: Path) -> None:
    status = report()
    leases = [{"name": "claude", "seconds": 5000.0, "pid": 77, "capped": False}]
    status["idle"] = status["idle"] | {"leases": leases}  # type: ignore[operator]
    with served(status) as url:
        page = chromium(url, tmp_path)
    assert "held awake by claude while pid 77 runs, 1 h 23 min at most" in page


def test_the_day_is_bands_steps_and_bars(tmp_path: Path) -> None:
    whole = dict.fromkeys(range(30, 60), 600.0)
    with_edges = whole | {29: 300.0, 60: 120.0, 100: 60.0}
    with served(report(), day(with_edges, sessions=2, failures=5)) as url:
        page = chromium(url, tmp_path)
    drawing = page.partition("<svg")[2].partition("</svg>")[0]
    bands = re.findall(r'class="band" x="([\d.]+)" y="\d+" width="([\d.]+)"', drawing)
    assert len(bands) == 2
    slot = float(bands[0][1]) / (30 + 0.5 + 0.2)
    assert float(bands[0][0]) == pytest.approx(29.5 * slot, abs=1)
    assert float(bands[1][1]) == pytest.approx(max(1.0, 0.1 * slot), abs=0.5)
    assert drawing.count('class="failures"') == len(with_edges)
    assert drawing.count('class="sessions"') == 1
    assert 6 <= drawing.count('class="tick"') <= 8
    assert '<span id="most-sessions">2</span>' in page


def test_old_numbers_are_dimmed_with_their_age(tmp_path: Path) -> None:
    with served(report(), answers=1, measured_after=12_000) as url:
        page = chromium(url, tmp_path, budget=14_000)
    assert '<body class="stale"' in page
    assert "does not answer" in page
    assert re.search(r"it may be asleep; the data below is \d+ s old", page)
    assert float(measured(page)["opacity"]) < 0.6
    assert '<h1 id="name">my-swarm</h1>' in page


def test_agents_and_checkpoints_have_their_place_where_there_are_any(tmp_path: Path) -> None:
    now = time.time()
    coding = {
        "name": "claude-1",
        "state": "waiting",
        "need": "a permission",
        "because": "",
        "note": "Bash: rm",
        "since": now - 40,
        "folder": "/workspace/app",
        "place": "tmux main:0",
    }
    kept = {
        "id": "abcdef0123456789",
        "at": now - 3600,
        "cause": "hourly",
        "added": 4096,
        "note": "",
    }
    with served(report(agents=[coding], checkpoints=[kept])) as url:
        page = chromium(url, tmp_path)
    assert "waits for a permission" in page
    assert ">abcdef01<" in page
    with served(report()) as url:
        page = chromium(url, tmp_path)
    assert '<section id="agents-part" hidden="">' in page
    assert '<section id="checkpoints-part" hidden="">' in page


def test_a_real_machine_behind_the_page(box: Box, tmp_path: Path) -> None:
    ready(box)
    client = Client(box)
    try:
        assert box.agent("ban", "203.0.113.7").returncode == 0
        time.sleep(1.1)  # an answer may be a second old
        page = chromium(f"http://127.0.0.1:{box.http_port}/", tmp_path)
    finally:
        assert client.end() == 0
    assert '<td data-name="key">ann</td>' in page
    assert '<td data-name="network">203.0.113.7</td>' in page
    assert 'class="good">awake</span>' in page
    assert 'class="band"' in page
