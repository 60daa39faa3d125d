"""The parts of the model APIs that Codex, Gemini CLI and OpenCode use.

Each wire extracts a request's newest prompt, and streams an answer of `tests.messages.Model`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Block = dict[str, Any]


@dataclass(frozen=True)
class Wire:
    """`newest`: the prompt, and whether its tool has answered; `events`: the lines of an answer."""

    newest: Callable[[dict[str, Any]], tuple[str, bool]]
    events: Callable[[Block, dict[str, Any]], Iterator[str]]


def _is_prompt(text: str) -> bool:
    """Whether a person typed it: a tool's own additions have markup, or are long."""
    return bool(text) and not text.startswith(("<", "#")) and len(text) < 500


def _responses_newest(body: dict[str, Any]) -> tuple[str, bool]:
    prompt, answered = "", False
    for item in body["input"]:
        if item.get("type") == "function_call_output":
            answered = True
        elif item.get("role") == "user":
            for part in item["content"]:
                if _is_prompt(text := part.get("text", "").strip()):
                    prompt, answered = text, False
    return prompt, answered


def _responses_events(block: Block, body: dict[str, Any]) -> Iterator[str]:
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    if block["type"] == "text":
        content = [{"type": "output_text", "text": block["text"]}]
        item = {"type": "message", "id": "m", "role": "assistant", "content": content}
    else:
        names = {each.get("name") for each in body["tools"]}
        name, word = ("exec_command", "cmd") if "exec_command" in names else ("shell", "command")
        command = block["input"]["command"]
        arguments: dict[str, object] = {"justification": "a test"}
        arguments[word] = command if word == "cmd" else ["sh", "-c", command]
        arguments["sandbox_permissions"] = "require_escalated"  # it asks for a permission
        item = {"type": "function_call", "call_id": block["id"], "name": name}
        item |= {"arguments": json.dumps(arguments)}
    for name, data in (
        ("response.created", {"response": {"id": "r"}}),
        ("response.output_item.done", {"output_index": 0, "item": item}),
        ("response.completed", {"response": {"id": "r", "usage": usage}}),
    ):
        yield f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"


def _gemini_newest(body: dict[str, Any]) -> tuple[str, bool]:
    prompt, answered = "", False
    for content in body["contents"]:
        for part in content["parts"]:
            if "functionResponse" in part:
                answered = True
            elif content["role"] == "user" and _is_prompt(text := part.get("text", "").strip()):
                prompt, answered = text, False
    return prompt, answered


def _gemini_events(block: Block, _: dict[str, Any]) -> Iterator[str]:
    if block["type"] == "text":
        part = {"text": block["text"]}
    else:
        arguments = {"command": block["input"]["command"], "description": "a command"}
        part = {"functionCall": {"name": "run_shell_command", "args": arguments}}
    content = {"role": "model", "parts": [part]}
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    answer = {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}]}
    yield f"data: {json.dumps({**answer, 'usageMetadata': usage})}\n\n"


def _chat_newest(body: dict[str, Any]) -> tuple[str, bool]:
    prompt, answered = "", False
    for message in body["messages"]:
        content = message.get("content") or ""
        parts = (
            [content] if isinstance(content, str) else [each.get("text", "") for each in content]
        )
        if message["role"] == "tool":
            answered = True
        elif message["role"] == "user":
            for part in parts:
                if _is_prompt(text := part.strip().strip('"')):
                    prompt, answered = text, False
    return prompt, answered


def _chat_events(block: Block, body: dict[str, Any]) -> Iterator[str]:
    if block["type"] == "text" or not body.get("tools"):
        delta: dict[str, Any] = {"content": block.get("text", "a title")}
        reason = "stop"
    else:
        arguments = {"command": block["input"]["command"], "description": "a command"}
        function = {"name": "bash", "arguments": json.dumps(arguments)}
        call = {"index": 0, "id": block["id"], "type": "function", "function": function}
        delta, reason = {"tool_calls": [call]}, "tool_calls"
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "stand-in"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    for more, why in (({"role": "assistant", **delta}, None), ({}, reason)):
        choice = {"index": 0, "delta": more, "finish_reason": why}
        yield f"data: {json.dumps({**chunk, 'choices': [choice], 'usage': usage})}\n\n"
    yield "data: [DONE]\n\n"


WIRES = {
    "/v1/responses": Wire(_responses_newest, _responses_events),
    ":streamGenerateContent": Wire(_gemini_newest, _gemini_events),
    "/v1/chat/completions": Wire(_chat_newest, _chat_events),
}
