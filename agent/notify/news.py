"""Turns events and readings into news for messages, each at most once.

Pure: every method takes the time (seconds of a clock that never steps). Details that a stranger
should not learn (paths, addresses, names of keys) are only in `detail`, which is sent only if the
setting allows it.
"""

import socket
from dataclasses import dataclass, replace

from agent import words
from agent.events import (
    BanStarted,
    CodingAgentChanged,
    Event,
    Reexecuted,
    SessionOpened,
    SleepBegan,
    SleepWarned,
)
from agent.network import Network

BUDGET_AT = 0.8
FULL_AT, AGAIN_BELOW = 0.9, 0.85
"""Used shares of the volume: it is reported as nearly full from `FULL_AT` on, and again only after
it was below `AGAIN_BELOW`."""

STORM, STORM_WINDOW, STORM_REST = 20, 600.0, 3600.0
"""So many bans within so many seconds are a storm; and seconds until another one is reported."""

MOST_KNOWN = 1000
MOST_FOLLOWED = 200
_PREFIXES: dict[int, int] = {socket.AF_INET: 24, socket.AF_INET6: 48}
"""Leading bits of an address that count as the network of a login."""


@dataclass(frozen=True, slots=True)
class News:
    """One thing to report. Of all news with the same `key`, only the first is sent."""

    kind: str
    key: str
    says: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Spell:
    """A coding agent's turn that runs, or what it waits for and since when."""

    turn_began: float | None = None
    waits_since: float | None = None
    need: str = ""
    folder: str = ""
    reported: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What outlives the machine: the networks of each key's logins, and the month for which the
    used budget was reported."""

    networks: frozenset[tuple[str, str]] = frozenset()
    budget_month: str = ""


class NewsDesk:
    """Turns events into news. `wait` and `done_after` are settings, in seconds."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self._spells: dict[str, Spell] = {}
        self._bans: list[float] = []
        self._storm_reported: float | None = None
        self._volume_reported = False

    def hear(self, event: Event, now: float, done_after: float) -> list[News]:
        """The news that follow from an event."""
        match event:
            case CodingAgentChanged():
                return self._coding(event, now, done_after)
            case SleepWarned():
                return self._about_to_sleep(event, now)
            case BanStarted():
                return self._ban(now)
            case SessionOpened():
                return self._login(event)
            case _:
                return _of_the_machine(event)

    def due(self, wait: float) -> float | None:
        """When the next wait has lasted long enough; None while nobody waits."""
        waits = [
            each.waits_since + wait
            for each in self._spells.values()
            if each.waits_since is not None and not each.reported
        ]
        return min(waits) if waits else None

    def waits(self, now: float, wait: float) -> list[News]:
        """Coding agents that have waited for longer than `wait`, each reported once."""
        news = []
        for name, spell in self._spells.items():
            since = spell.waits_since
            if since is not None and not spell.reported and now - since >= wait:
                self._spells[name] = replace(spell, reported=True)
                says = f"{name} waits for {spell.need}"
                news.append(News("waiting", f"waiting {name} {since:.3f}", says, spell.folder))
        return news

    def readings(self, budget_used: float, month: str, volume_used: float) -> list[News]:
        """The news that follow from the used shares of the budget and of the volume."""
        news = []
        if budget_used >= BUDGET_AT and self.known.budget_month != month:
            self.known = replace(self.known, budget_month=month)
            says = f"{budget_used:.0%} of this month's budget of hours is used"
            news.append(News("budget", f"budget {month}", says))
        if volume_used >= FULL_AT and not self._volume_reported:
            self._volume_reported = True
            says = f"the volume is {volume_used:.0%} full"
            news.append(News("volume", f"volume {volume_used:.2f} {month}", says))
        elif volume_used < AGAIN_BELOW:
            self._volume_reported = False
        return news

    def _coding(self, event: CodingAgentChanged, now: float, done_after: float) -> list[News]:
        name = event.agent
        before = self._spells.pop(name, Spell())
        if event.state == "ended" or len(self._spells) >= MOST_FOLLOWED:
            return self._done(event, before, now, done_after)
        if event.state == "working":
            began = now if before.turn_began is None else before.turn_began
            self._spells[name] = Spell(turn_began=began, folder=event.folder)
            return []
        if event.state == "waiting" and event.need != "the next prompt":
            self._spells[name] = Spell(before.turn_began, now, event.need, event.folder)
            return []
        if event.state == "failed":
            self._spells[name] = Spell(folder=event.folder)
            says = f"{name} has failed: {event.because}"
            return [News("failed", f"failed {name} {event.at:.3f}", says, event.folder)]
        self._spells[name] = Spell(folder=event.folder)
        return [] if event.state == "unknown" else self._done(event, before, now, done_after)

    @staticmethod
    def _done(
        event: CodingAgentChanged, before: Spell, now: float, done_after: float
    ) -> list[News]:
        if before.turn_began is None or now - before.turn_began < done_after:
            return []
        says = f"{event.agent} is done after {words.duration(now - before.turn_began)}"
        return [News("done", f"done {event.agent} {event.at:.3f}", says, event.folder)]

    def _about_to_sleep(self, event: SleepWarned, now: float) -> list[News]:
        waiting = [name for name, each in self._spells.items() if each.waits_since is not None]
        if not waiting:
            return []
        who = ", ".join(sorted(waiting)[:5])
        says = f"the machine sleeps in {words.duration(event.seconds)}, and {who} waits for you"
        return [News("sleeping", f"sleeping {now:.0f}", says)]

    def _ban(self, now: float) -> list[News]:
        recent = [at for at in self._bans if now - at < STORM_WINDOW]
        self._bans = [*recent[1 - STORM :], now]
        rests = self._storm_reported is not None and now - self._storm_reported < STORM_REST
        if len(self._bans) < STORM or rests:
            return []
        self._storm_reported = now
        says = f"{STORM} networks were banned within {words.duration(now - self._bans[0])}"
        return [News("bans", f"bans {now:.0f}", says)]

    def _login(self, event: SessionOpened) -> list[News]:
        network = _network_of(event.client)
        came = (event.fingerprint, network)
        if came in self.known.networks or len(self.known.networks) >= MOST_KNOWN:
            return []
        first_of_all = not self.known.networks
        self.known = replace(self.known, networks=self.known.networks | {came})
        if first_of_all:
            return []  # a machine that knows nobody would find everybody new
        says = "a key logged in from a network that it never came from before"
        return [News("network", f"network {came}", says, f"{event.key} from {event.client}")]


def _of_the_machine(event: Event) -> list[News]:
    if isinstance(event, SleepBegan):
        key = f"slept {event.at:.0f}"
        return [News("slept", key, f"the machine goes to sleep: {event.because}")]
    if isinstance(event, Reexecuted):
        counts = (
            f"{words.plural(event.failures, 'failure')}, "
            f"{words.plural(event.reloads, 'reload')} since it started"
        )
        key = f"reexecuted {event.failures} {event.reloads} {event.at:.0f}"
        return [News("reexecuted", key, f"the agent re-executed in place ({counts})")]
    return []


def _network_of(client: str) -> str:
    try:
        host = Network.host(client)
    except ValueError:
        return client  # not an address: the client's name stands for its network
    return str(host.within(_PREFIXES[host.family]))
