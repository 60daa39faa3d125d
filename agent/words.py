"""Values as text for people, and aligned tables."""

from collections.abc import Sequence

from agent import safe


def duration(seconds: float) -> str:
    """`8 s`, `1 min 30 s`, `17 min`, `2 h 05 min`, `3 d 4 h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 600 and whole % 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(count: float) -> str:
    """`512 B`, `3.4 KiB`, `1.2 GiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def plural(count: int, thing: str, many: str | None = None) -> str:
    """`1 session`, `2 sessions`, `1 process`, `2 processes`."""
    return f"{count} {thing if count == 1 else many or thing + 's'}"


def error(found: BaseException) -> str:
    """Kind and message of an error; for a group, of the first error in it."""
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return f"{type(found).__name__}: {found}"


def rate(count: float, seconds: float) -> str:
    """Bytes over a time, as `3.4 KiB/s`."""
    return f"{size(count / seconds)}/s"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces apart; every cell is one line."""
    lines = [head, *([safe.line(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
