"""The machine's log as flyctl prints it: the agent's events in words, other lines unchanged."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from agent import safe

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LINE = re.compile(r"^(?P<at>\S+Z)\s+(?:\S+\s+)*?\[(?P<level>\w*)\]\s?(?P<said>.*)$")
_OURS = ("timestamp", "level", "event")


@dataclass(frozen=True)
class Line:
    """A line of the log; `event` is empty if the agent did not write it."""

    at: str
    said: str
    event: str = ""
    level: str = "info"
    fields: "tuple[tuple[str, str], ...]" = ()

    def field(self, name: str) -> str:
        """A field of the event, as text; empty if it has none."""
        return dict(self.fields).get(name, "")

    def __str__(self) -> str:
        """As a person reads it."""
        if not self.event:
            return f"{self.at[11:19]}  {self.said}".rstrip()
        fields = " ".join(f"{name}={value}" for name, value in self.fields)
        return f"{self.at[11:19]}  {self.level:7}  {self.event}  {fields}".rstrip()


def parse(text: str) -> Line:
    """One line of `fly logs`."""
    plain = _ANSI.sub("", text)
    match = _LINE.match(plain)
    at, said = (match["at"], match["said"]) if match else ("", plain)
    try:
        event = msgspec.json.decode(said, type=dict[str, object])
    except msgspec.DecodeError:
        return Line(at, safe.line(said))
    fields = tuple(
        (name, safe.line(_text(value))) for name, value in event.items() if name not in _OURS
    )
    return Line(
        str(event.get("timestamp", at)),
        said,
        safe.line(str(event.get("event", ""))),
        safe.line(str(event.get("level", "info"))),
        fields,
    )


def chosen(lines: Iterable[str], service: str) -> Iterator[Line]:
    """The lines, or those of one service."""
    for text in lines:
        line = parse(text)
        if not service or line.field("service") == service:
            yield line


def wakers(lines: Iterable[str]) -> list[tuple[str, int]]:
    """Clients that woke the machine without a login, and how often; the most frequent first."""
    found: Counter[str] = Counter()
    came: Counter[str] = Counter()
    for line in map(parse, lines):
        if line.event == "wake.reason":
            if line.field("reason") == "scan":
                found.update(came.keys())
            came.clear()
        elif client := line.field("client"):
            came[client] += 1
    return found.most_common()


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
