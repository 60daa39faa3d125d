"""Pending messages: a flood becomes one letter, failures are retried, nothing is sent twice.

Pure: every method takes the time, as Unix time, because pending messages outlive the machine.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from agent.notify.news import News
from agent.pace import doubled

LETTERS, WINDOW = 6, 600.0
"""At most so many letters in so many seconds; further news wait for the next letter."""

LINES = 8
"""News that one message spells out; the rest is counted."""

MOST_PENDING = 200
FIRST_RETRY, LONGEST_RETRY = 30.0, 3600.0
LIFETIME = 86400.0
"""Seconds after which an undelivered letter is dropped, and a key may be sent again."""

MOST_KEYS = 500


@dataclass(frozen=True, slots=True)
class Letter:
    """A message to the addresses `to` (empty: to all)."""

    says: str
    made: float
    to: frozenset[int] = frozenset()
    attempts: int = 0
    due: float = 0.0


@dataclass(frozen=True, slots=True)
class Kept:
    """Pending and recently sent messages, in the form that outlives the machine."""

    letters: tuple[Letter, ...] = ()
    pending: tuple[News, ...] = ()
    left_out: int = 0
    sent: tuple[float, ...] = ()
    keys: tuple[tuple[str, float], ...] = ()


class Outbox:
    """Collects news and gives out letters."""

    def __init__(self, kept: Kept) -> None:
        self._letters = list(kept.letters)
        self._pending = list(kept.pending)
        self._left_out = kept.left_out
        self._sent = list(kept.sent)
        self._keys = dict(kept.keys)

    def kept(self) -> Kept:
        """Pending and recently sent messages of this moment."""
        keys = tuple(self._keys.items())
        pending, sent = tuple(self._pending), tuple(self._sent)
        return Kept(tuple(self._letters), pending, self._left_out, sent, keys)

    def add(self, news: Iterable[News], now: float) -> None:
        """Queue these, unless they were sent lately."""
        for each in news:
            if now - self._keys.get(each.key, -LIFETIME) < LIFETIME:
                continue
            self._keys[each.key] = now
            if len(self._pending) < MOST_PENDING:
                self._pending.append(each)
            else:
                self._left_out += 1
        latest = sorted(self._keys.items(), key=lambda entry: entry[1])[-MOST_KEYS:]
        self._keys = dict(latest)

    def seal(self, now: float, *, quiet: bool, details: bool) -> None:
        """Make a letter of the pending news, if one may be sent now."""
        self._sent = [at for at in self._sent if now - at < WINDOW]
        if not self._pending or quiet or len(self._sent) >= LETTERS:
            return
        self._sent.append(now)
        self._letters.append(Letter(_text(self._pending, self._left_out, details), now))
        self._pending, self._left_out = [], 0

    def ready(self, now: float) -> list[Letter]:
        """The letters that are due; each stays until `sent` or `failed` is called for it."""
        self._letters = [each for each in self._letters if now - each.made < LIFETIME]
        return [each for each in self._letters if each.due <= now]

    def sent(self, letter: Letter) -> None:
        """Remove a letter that all its addresses have accepted."""
        self._letters.remove(letter)

    def failed(self, letter: Letter, to: Iterable[int], now: float) -> None:
        """Retry later for the addresses `to`, which did not accept the letter."""
        pause = doubled(FIRST_RETRY, letter.attempts, LONGEST_RETRY)
        again = replace(letter, to=frozenset(to), attempts=letter.attempts + 1, due=now + pause)
        self._letters[self._letters.index(letter)] = again

    def due(self, now: float) -> float | None:
        """When the next letter can be sent; None while nothing is pending."""
        times = [each.due for each in self._letters]
        if self._pending:
            full = len(self._sent) >= LETTERS
            times.append(self._sent[-LETTERS] + WINDOW if full else now)
        return min(times) if times else None


def _text(news: list[News], left_out: int, details: bool) -> str:
    lines = [
        f"{each.says} ({each.detail})" if details and each.detail else each.says
        for each in news[:LINES]
    ]
    rest = len(news) - len(lines) + left_out
    return "\n".join([*lines, *([f"and {rest} more"] if rest else [])])
