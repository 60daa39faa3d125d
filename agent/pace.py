"""How fast something may go: a token bucket, and pauses that double. Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """A token bucket: what is left of a burst, as of a moment (seconds of any steady clock)."""

    tokens: float
    at: float

    def level(self, rate: float, burst: float, now: float) -> float:
        """The tokens at `now`; `rate` of them come back in a second, up to `burst`."""
        return min(burst, self.tokens + max(0.0, now - self.at) * rate)

    def take(self, count: float, rate: float, burst: float, now: float) -> None:
        """Take tokens; taking more than there are makes a debt."""
        self.tokens, self.at = self.level(rate, burst, now) - count, now


def doubled(first: float, times: int, longest: float) -> float:
    """`first` seconds, doubled `times` times, but at most `longest`."""
    return min(longest, first * 2.0 ** min(times, 64))
