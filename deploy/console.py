"""The part of a machine's log that `make run` shows: one line for each important event."""

import json
import time

from agent import safe, words

_SAYS = {
    "ssh.session.opened": "{user} logged in from {client} with the key {key}",
    "ssh.session.closed": "{user} from {client} left after {seconds}: {reason}",
    "ban.started": "{network} is banned for {seconds}: {reason}",
    "ban.lifted": "{network} is no longer banned: {reason}",
    "lease.taken": "held awake by {lease}",
    "lease.ended": "no longer held awake by {lease}: {reason}",
    "sleep.warned": "sleeps in {seconds} unless something happens: {because}",
    "sleep.cancelled": "stays awake: {because}",
    "sleep.began": "goes to sleep: {because}",
    "agent.reexecuted": "the agent re-executed in place; {connections} connections stay",
    "agent.notice": "{part}: {notice}",
    "agent.problem": "{part}: {problem}",
    "agent.part.failed": "{part} crashed and restarts: {problem}",
    "service.ready": "service {service} is ready",
    "service.backoff": "service {service} crashed and restarts",
    "service.failed": "service {service} failed",
    "checkpoint.failed": "no checkpoint ({cause}): {problem}",
    "checkpoint.replaced": "the checkpoints cannot be used and were set aside: {reason}",
    "checkpoint.upload.failed": "checkpoints are not copied away: {problem}; again in {retry_in}",
    "settings.refused": "settings were refused: {problem}",
}
"""Events and their texts; of all other events, warnings and errors are shown unchanged."""

LISTENING = "boot.listening"


def event_of(line: str) -> dict[str, object] | None:
    """The record of a log line; None if it is something else, such as a program's output."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "event" in record else None


def shown(line: str, at: float) -> str | None:
    """The text for a line that came at `at` (Unix time); None if it is not shown."""
    record = event_of(line)
    said = safe.line(line.strip()) if record is None else _words(record)
    return f"{time.strftime('%H:%M:%S', time.localtime(at))}  {said}" if said else None


def _words(record: dict[str, object]) -> str:
    name = str(record["event"])
    fields = {key: _value(key, value) for key, value in record.items()}
    if name in _SAYS:
        try:
            return safe.line(_SAYS[name].format(**fields))
        except KeyError:
            pass  # an event of another version: shown unchanged
    if record.get("level") in ("warning", "error"):
        rest = [f"{key}={value}" for key, value in fields.items() if key not in _HEAD]
        return safe.line(" ".join([name, *rest]))
    return ""


_HEAD = ("timestamp", "level", "event")


def _value(key: str, value: object) -> str:
    if key in ("seconds", "retry_in") and isinstance(value, int | float):
        return words.duration(value)
    return str(value)
