"""How fast something may go: a token bucket, and pauses that double. Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """A token bucket: the tokens left at a moment (seconds of any steady clock)."""

    tokens: float
    at: float

    def level(self, rate: float, burst: float, now: float) -> float:
        """The tokens at `now`; `rate` tokens a second are added, up to `burst`."""
        return min(burst, self.tokens + max(0.0, now - self.at) * rate)

    def take(self, count: float, rate: float, burst: float, now: float) -> None:
        """Take tokens; the bucket may go into debt."""
        self.tokens, self.at = self.level(rate, burst, now) - count, now


def doubled(first: float, times: int, longest: float) -> float:
    """`first` seconds, doubled `times` times, but at most `longest`."""
    return min(longest, first * 2.0 ** min(times, 64))
