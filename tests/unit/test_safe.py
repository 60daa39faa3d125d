"""Text from outside cannot control a terminal, break a line or fail to encode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import safe, words

pytestmark = pytest.mark.attack

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT)
def test_a_line_is_one_line_without_control_characters(text: str) -> None:
    shown = safe.line(text)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert not [c for c in shown if ord(c) < 32 and c != "\t"]
    assert not [c for c in shown if 127 <= ord(c) < 160]


@given(ANY_TEXT)
def test_what_is_safe_stays_as_it_is(text: str) -> None:
    shown = safe.line(text)
    assert safe.line(shown) == shown


@given(st.binary())
def test_any_bytes_become_a_line(data: bytes) -> None:
    assert safe.line(safe.decoded(data)) == safe.decoded(data)
    assert safe.line(safe.output(data)) == safe.output(data)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Ünïcode 日本語", "plain, Ünïcode 日本語"),
        ("a\tb", "a\tb"),
        ("a\nb\rc", "a\\nb\\rc"),
        ("\x1b]0;pwned\x07", "\\x1b]0;pwned\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("name\udcff", "name\\xff"),
        ("half \ud800", "half \\ud800"),
        ("ab\u202edc", "ab\\u202edc"),
        ("a\u2028b", "a\\u2028b"),
        ("\U0001f469\u200d\U0001f4bb \u00a0", "\U0001f469\u200d\U0001f4bb \u00a0"),
    ],
)
def test_what_becomes_of_what(text: str, shown: str) -> None:
    assert safe.line(text) == shown


def test_a_line_is_cut_at_its_limit() -> None:
    assert safe.line("x" * 11, 10) == "x" * 10 + safe.CUT


def test_records_are_safe_all_the_way_down() -> None:
    record = {"na\nme": ["\x1b[2J", {"x": "\udc80"}, 1, None, True]}
    assert safe.record(record) == {"na\\nme": ["\\x1b[2J", {"x": "\\x80"}, 1, None, True]}


def test_the_last_line_is_the_last_one_with_a_word() -> None:
    assert safe.last_line(b"one\n\x1b[32mtwo\x1b[0m\n  \n\n", 100) == "two"
    assert safe.last_line(b"\n", 100) == ""


def test_a_cell_of_a_table_cannot_begin_a_row() -> None:
    assert words.table(("name",), [("x\ny  \x1b[1A",)]).count("\n") == 1
