"""Tables that fit the terminal: columns side by side, else wrapped, else one block per row."""

import os
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

from agent import safe

GAP = 2
NARROWEST = 16
"""A column is not wrapped to less than this width, or less than its longest word."""


def width(output: TextIO | None = None) -> int | None:
    """The width of the terminal that the output goes to; None if it goes elsewhere."""
    if os.environ.get("COLUMNS", "").isdigit():
        return int(os.environ["COLUMNS"]) or None
    try:
        return os.get_terminal_size((output or sys.stdout).fileno()).columns or None
    except (OSError, ValueError):
        return None


def table(head: Sequence[str], rows: Sequence[Sequence[str]], most: int | None = None) -> str:
    """The rows below the head, no line longer than `most`, by default the terminal's width.

    Nothing is cut off: cells are wrapped at spaces, and if that is not enough, each row becomes
    a block with one line per column.
    """
    most = width() if most is None else most
    rows = [[safe.line(cell) for cell in row] for row in rows]
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    if most is not None and _total(widths) > most:
        floors = [_floor(column, lines) for column in range(len(head))]
        widths = _squeezed(widths, floors, most)
        if _total(widths) > most:
            return "\n".join(_block(head, row, most) for row in rows)
    return "\n".join(_line(line, widths) for line in lines)


def wrapped(text: str, indent: str = "  ", *, most: int | None = None) -> str:
    """A paragraph that fits `most` columns, by default the terminal's; later lines are indented."""
    most = width() if most is None else most
    if most is None:
        return text
    return textwrap.fill(
        text, most, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _floor(column: int, lines: Sequence[Sequence[str]]) -> int:
    longest = max((len(word) for line in lines for word in line[column].split()), default=0)
    full = max(len(line[column]) for line in lines)
    return min(full, max(longest, NARROWEST))


def _squeezed(widths: list[int], floors: list[int], most: int) -> list[int]:
    """Narrow the widest column above its floor until the line fits, or all are at their floors."""
    widths = list(widths)
    while _total(widths) > most:
        spare = [width - floor for width, floor in zip(widths, floors, strict=True)]
        column = max(range(len(widths)), key=lambda each: (spare[each] > 0, widths[each]))
        if spare[column] <= 0:
            break
        widths[column] -= min(spare[column], _total(widths) - most)
    return widths


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    columns = [_wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, columns))
    gap = " " * GAP
    return "\n".join(
        gap.join(
            (column[row] if row < len(column) else "").ljust(width)
            for column, width in zip(columns, widths, strict=True)
        ).rstrip()
        for row in range(height)
    )


def _wrap(text: str, most: int) -> list[str]:
    if len(text) <= most:
        return [text]
    return textwrap.wrap(text, most, break_long_words=False, break_on_hyphens=False)


def _block(head: Sequence[str], row: Sequence[str], most: int) -> str:
    """The first cell, and below it the other columns by name."""
    label = max(map(len, head[1:]))
    lines = [row[0]]
    for name, cell in zip(head[1:], row[1:], strict=True):
        if not cell:
            continue
        beside = most - label - 4
        if max(map(len, cell.split())) <= beside:
            first, *others = _wrap(cell, beside)
            lines.append(f"  {name.ljust(label)}  {first}")
            lines += [" " * (label + 4) + each for each in others]
        else:
            lines += [f"  {name}", *(f"    {each}" for each in _wrap(cell, most - 4))]
    return "\n".join(lines)
