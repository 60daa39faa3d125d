"""Quiet hours: `22:00-07:00`, or `22:00-07:00 Europe/Berlin`; without a zone they are UTC."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_HOURS = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)(?: ([\w+/-]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `begin` to `end` of every day, across midnight if `end` is earlier."""

    begin: time
    end: time
    zone: tzinfo

    @classmethod
    def parse(cls, text: str) -> "QuietHours":
        """Raises `ValueError`."""
        match = _HOURS.fullmatch(text)
        expected = "quiet hours such as 22:00-07:00 or 22:00-07:00 Europe/Berlin"
        if match is None:
            raise ValueError(expected)
        try:
            begin = time(int(match[1]), int(match[2]))
            end = time(int(match[3]), int(match[4]))
            zone = UTC if match[5] is None else ZoneInfo(match[5])
        except (ValueError, ZoneInfoNotFoundError, OSError) as error:
            raise ValueError(f"{expected} ({error})") from error
        return cls(begin, end, zone)

    def hold(self, at: float) -> bool:
        """Whether it is quiet at a Unix time."""
        now = datetime.fromtimestamp(at, self.zone).time()
        if self.begin <= self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end
