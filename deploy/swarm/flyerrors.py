"""flyctl's errors, each with what to do about it."""

import re
from collections.abc import Sequence

from agent import safe

LAST_LINES = 15

_ANSWERED = r"non-2(?:xx|00) status(?: code)?: "
_LIMITED = re.compile(rf"{_ANSWERED}429|rate limit", re.IGNORECASE)

_HINTS = (
    (
        rf"no access token|not logged in|log ?in|must be authenticated|{_ANSWERED}401",
        "log in: fly auth login",
    ),
    (r"already been taken|name_taken", "choose another name: swarm up OTHER-NAME"),
    (r"org slug must be specified|organization .* not found", "fly orgs list: swarm up --org ORG"),
    (r"insufficient|could not reserve|capacity|free$|MB free", ""),
    (
        r"app limit|quota|credit card|payment method|billing",
        "see fly.io/dashboard: limits and payment of your account",
    ),
    (r"region .* not found", "fly platform regions lists them: swarm up NAME --region REGION"),
    (r"manifest|image.*not found|could not find image", "is the image's name right, and public?"),
    (r"smaller than the snapshot", "give the volume more: swarm up NAME --volume GB"),
    (r"is leased", "another flyctl changes the machine: wait a minute, then run it again"),
    (_LIMITED.pattern, "the API's rate limit is reached: wait a minute, then run it again"),
    (
        rf"{_ANSWERED}5|decoding response|invalid character",
        "Fly's API has trouble: see status.flyio.net, then run it again",
    ),
    (r"builder", "without a build: swarm up NAME --image REF"),
    (
        r"timed? ?out|connection|network|lookup|dial|EOF|reset by peer",
        "is the network up? Then run it again",
    ),
    (r"unreachable", "the host does not answer: swarm status NAME, swarm move NAME"),
)


class FlyError(Exception):
    """flyctl is missing, too old, or refused; the message says what to do."""


class RateLimitError(FlyError):
    """The API answered 429: too many requests."""


class UnreachableError(FlyError):
    """The platform cannot reach the host that the machine is on."""


def explained(words: Sequence[str], said: str) -> FlyError:
    """flyctl's error with what to do about it."""
    said = _QUERY.sub("", said)
    last = [safe.output(line.encode()) for line in said.splitlines()[-LAST_LINES:]]
    shown = " ".join(words[:2])
    problem = f"fly {shown}: {chr(10).join(last)[-1500:].removeprefix('Error: ')}"
    for pattern, hint in _HINTS:
        if re.search(pattern, said, re.IGNORECASE):
            return _kind(said)(problem + (f"\n  {hint}" if hint else ""))
    return FlyError(problem)


_QUERY = re.compile(r"failed to run query.*\} ?: ")
"""flyctl quotes the whole failed query; its text must not be taken for the reason."""


def _kind(said: str) -> type[FlyError]:
    if _LIMITED.search(said):
        return RateLimitError
    return UnreachableError if "unreachable" in said else FlyError
