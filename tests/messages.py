"""A stand-in for the model of a coding agent: Anthropic's Messages API, as far as Claude Code asks,
and those of `tests.wires`.

The first word of the newest prompt says what the model does; a test releases the answer to `hold`.
"""

import json
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.wires import WIRES, Wire

TEXT = "All done."
QUESTION = {
    "question": "Which colour?",
    "header": "Colour",
    "multiSelect": False,
    "options": [{"label": each, "description": each} for each in ("Red", "Blue")],
}


class Model:
    """The model's behaviour; `released` lets it answer `hold`."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.url = ""
        self._uses = 0
        self._lock = threading.Lock()

    def step(self, prompt: str) -> dict[str, Any]:
        """The content block that answers a prompt."""
        word, _, rest = prompt.partition(" ")
        if word == "hold":
            assert self.released.wait(120), "nobody has released the model"
        tools = {
            "run": ("Bash", {"command": rest, "description": "a command"}),
            "bg": (
                "Bash",
                {"command": rest, "description": "a command", "run_in_background": True},
            ),
            "ask": ("AskUserQuestion", {"questions": [QUESTION]}),
            "sub:": (
                "Agent",
                {"description": "a job", "prompt": rest, "subagent_type": "general-purpose"},
            ),
        }
        if word not in tools:
            return {"type": "text", "text": TEXT}
        name, arguments = tools[word]
        with self._lock:
            self._uses += 1
            use = {"type": "tool_use", "id": f"toolu_{self._uses}", "name": name}
            return {**use, "input": arguments}


def newest_prompt(body: dict[str, Any]) -> tuple[str, bool]:
    """The newest prompt except the tool's own notes, and whether its tool has answered."""
    prompt, answered = "", False
    for message in body["messages"]:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            text = part.get("text", "").strip()
            if part["type"] == "tool_result":
                answered = True
            elif message["role"] == "user" and text and not text.startswith("<"):
                prompt, answered = text, False
    return prompt, answered


def _events(block: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "stand-in",
    }
    yield "message_start", {"message": {**message, "content": [], "usage": usage}}
    if block["type"] == "text":
        first: dict[str, Any] = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": block["text"]}
    else:
        text = json.dumps(block["input"])
        first = {**block, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": text}
    yield "content_block_start", {"index": 0, "content_block": first}
    yield "content_block_delta", {"index": 0, "delta": delta}
    yield "content_block_stop", {"index": 0}
    reason = "end_turn" if block["type"] == "text" else "tool_use"
    yield "message_delta", {"delta": {"stop_reason": reason}, "usage": usage}
    yield "message_stop", {}


@contextmanager
def model() -> Iterator[Model]:
    """Serve on a port of the loopback; `url` is where."""
    told = Model()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            wire = next((each for name, each in WIRES.items() if name in self.path), None)
            if wire is not None:
                self._answer(wire, body)
                return
            if not self.path.startswith("/v1/messages") or "messages" not in body:
                self._json(404, {})
                return
            prompt, answered = newest_prompt(body)
            status = re.match(r"err(\d+)", prompt)
            if status and body.get("stream"):
                self._json(int(status[1]), {"type": "error", "error": {"message": "as told"}})
            elif not body.get("stream"):
                usage = {"input_tokens": 1, "output_tokens": 1}
                content = [{"type": "text", "text": TEXT}]
                message = {"type": "message", "role": "assistant", "stop_reason": "end_turn"}
                self._json(200, {**message, "content": content, "usage": usage, "input_tokens": 1})
            else:
                self._stream({"type": "text", "text": TEXT} if answered else told.step(prompt))

        def do_GET(self) -> None:
            self._json(404, {})

        def do_HEAD(self) -> None:
            self._json(200, {})

        def _json(self, status: int, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _answer(self, wire: Wire, body: dict[str, Any]) -> None:
            """Answer a tool other than Claude Code."""
            prompt, answered = wire.newest(body)
            if status := re.match(r"err(\d+)", prompt):
                self._json(int(status[1]), {"error": {"message": "as told", "code": 1}})
            else:
                block = {"type": "text", "text": TEXT} if answered else told.step(prompt)
                self._lines(wire.events(block, body))

        def _stream(self, block: dict[str, Any]) -> None:
            self._lines(
                f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"
                for name, data in _events(block)
            )

        def _lines(self, events: Iterable[str]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for event in events:
                self.wfile.write(event.encode())
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield told
    finally:
        told.released.set()
        server.shutdown()
        server.server_close()
