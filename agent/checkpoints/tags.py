"""Cause and note of a checkpoint, stored as tags of its restic snapshot.

They are copied with it to every repository. restic separates tags with commas.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote, unquote

from agent import safe
from agent.checkpoints.policy import Cause

LONGEST_NOTE = 200


def write(cause: Cause, note: str) -> list[str]:
    """The tags of a new checkpoint."""
    noted = [f"note={quote(clean(note), safe=' ')}"] if note else []
    return [f"cause={cause.name.lower()}", *noted]


def read(tags: Sequence[str]) -> tuple[str, str]:
    """Cause and note, cut short and without control characters, whoever wrote them."""
    given = dict(tag.partition("=")[::2] for tag in tags if "=" in tag)
    causes = {cause.name.lower(): cause.value for cause in Cause}
    return causes.get(given.get("cause", ""), ""), clean(unquote(given.get("note", "")))


def clean(note: str) -> str:
    """A note as it is stored."""
    return safe.line(note[:LONGEST_NOTE])


def unix_time(text: str) -> float:
    """Unix time from restic's time, which has nanoseconds; 0 if it is invalid."""
    match = re.fullmatch(r"([\d-]+T[\d:]+)(?:\.(\d+))?(Z|[+-][\d:]+)?", text)
    if match is None:
        return 0.0
    try:
        return datetime.fromisoformat(
            f"{match[1]}.{(match[2] or '0')[:6]:0<6}{match[3] or ''}"
        ).timestamp()
    except ValueError:
        return 0.0
