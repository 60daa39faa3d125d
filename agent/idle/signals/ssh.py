"""Traffic of SSH sessions above the noise of keepalives and of an editor left open."""

from agent import words
from agent.access import tcpinfo
from agent.access.sessions import Sessions
from agent.idle.signals.sign import Sign


class SshTraffic:
    """Bytes of each session's connection since the last look; `threshold` in bytes a second."""

    name = "ssh"

    def __init__(self, sessions: Sessions, threshold: float) -> None:
        self._sessions = sessions
        self._threshold = threshold
        self._before: dict[str, int] = {}
        self._looked = 0.0

    async def look(self, now: float) -> list[Sign]:
        """One sign for each session. Raises `OSError` if the kernel does not count the bytes."""
        before, seconds = self._before, now - self._looked
        self._before, self._looked = {}, now
        signs = []
        for session in self._sessions:
            traffic = tcpinfo.traffic(session.connection)
            total = self._before[session.id] = traffic.received + traffic.sent
            if session.id not in before or seconds <= 0:
                continue
            count = total - before[session.id]
            says = f"session {session.id}, {session.user} from {session.client}: "
            says += words.rate(count, seconds)
            signs.append(Sign(count / seconds >= self._threshold, says))
        return signs
