"""Typing: the kernel moves a terminal's atime on input, and only its mtime on output."""

import os

from agent.access.sessions import Session, Sessions
from agent.idle.signals.sign import Sign

_PTS = "/dev/pts"


class Terminals:
    """Compares atimes with those of the last look, so that no jump of the wall clock matters."""

    name = "terminal"

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._atimes: dict[str, int] = {}

    async def look(self, _now: float) -> list[Sign]:
        """One sign for each terminal that was typed in. Raises `OSError`."""
        owners = {terminal: session for session in self._sessions for terminal in session.terminals}
        before, self._atimes = self._atimes, _atimes()
        return [
            Sign(True, _says(name, owners.get(f"pts/{name}")))
            for name, atime in self._atimes.items()
            if before.get(name, atime) != atime
        ]


def _atimes() -> dict[str, int]:
    atimes = {}
    for name in os.listdir(_PTS):
        if name.isdigit():
            try:
                atimes[name] = os.stat(f"{_PTS}/{name}").st_atime_ns
            except FileNotFoundError:
                continue  # closed meanwhile
    return atimes


def _says(name: str, session: Session | None) -> str:
    if session is None:
        return f"typing on pts/{name}, not a login"
    return f"typing on pts/{name}: session {session.id}, {session.user} from {session.client}"
