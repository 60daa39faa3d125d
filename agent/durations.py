"""Durations as people write them."""

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> float:
    """Seconds, from `90s`, `30m`, `2h`, `1h30m`, `500ms`; `ValueError` describes a valid value."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text, re.ASCII)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("a duration with its unit, such as 90s, 30m, 2h or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def positive_duration(text: str) -> float:
    """A positive number of seconds."""
    seconds = duration(text)
    if seconds <= 0:
        raise ValueError("a duration longer than 0s")
    return seconds
