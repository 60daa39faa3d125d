"""Text from outside, made safe to show: on terminals, in the log, in answers and on pages.

Names of files and users, output of programs and messages of clients may contain control sequences,
line breaks or invalid UTF-8. All such text passes through here once, where it enters the agent.
The result is valid UTF-8, moves no cursor, changes no colour, and hides or reorders no text.
"""

import re
from typing import TypeVar, cast

T = TypeVar("T")

LONGEST = 64 << 10
"""The default limit of characters of one text."""

CUT = "…(cut)"

_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0a-\x1f\x7f-\x9f"  # control characters but for the tab
    "\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff"
    "\ud800-\udfff"  # halves of characters: bytes of a file name that are no UTF-8
    "\U000e0000-\U000e007f"
    "]"
)
"""Characters that act on a terminal, end a line, reorder or hide text, or cannot be encoded.

Joiners stay: emoji and some scripts need them.
"""

_COLOUR = re.compile("\x1b\\[[0-9;:]*m")


def line(text: str, most: int = LONGEST) -> str:
    """One line of at most `most` characters; unsafe characters become escapes."""
    shown = _UNSAFE.sub(_escape, text)
    return shown if len(shown) <= most else shown[:most] + CUT


def lines(text: str, most: int = LONGEST) -> str:
    """The same for text of several lines, whose line breaks stay."""
    return "\n".join(line(each, most) for each in text.split("\n"))


def decoded(data: bytes, most: int = LONGEST) -> str:
    """Bytes that should be UTF-8, as one line."""
    return line(data.decode("utf-8", "backslashreplace"), most)


def output(data: bytes, most: int = LONGEST) -> str:
    """A line that a program wrote for a terminal, without its colours."""
    text = data.decode("utf-8", "backslashreplace").rstrip("\r\n")
    return line(_COLOUR.sub("", text), most)


def last_line(data: bytes, most: int) -> str:
    """The last line that is not empty."""
    return next((output(each, most) for each in reversed(data.split(b"\n")) if each.strip()), "")


def record(value: T) -> T:
    """Lists, dictionaries and texts from JSON, with every text made one safe line."""
    return cast(T, _record(value))


def _record(value: object) -> object:
    if isinstance(value, str):
        return line(value)
    if isinstance(value, list):
        return [_record(each) for each in value]
    if isinstance(value, dict):
        return {_record(key): _record(each) for key, each in value.items()}
    return value


def _escape(match: "re.Match[str]") -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # PEP 383: a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode("ascii")
