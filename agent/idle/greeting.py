"""The greeting on the terminal of every new shell: the state of the machine, and problems.

It is written straight to the terminal when sshd reports a shell there. So it needs no file in /etc
and no shell start-up script, and it is current.
"""

import os
import time
from collections.abc import Callable, Iterable

from agent import words
from agent.access.homekeys import about
from agent.access.keyring import Keyring
from agent.access.sessions import Sessions
from agent.clock import clock
from agent.events import Event, Notice, ShellOpened
from agent.idle.budget import Budget
from agent.idle.policy import sleeps_at
from agent.idle.watch import Watch
from agent.platform import terminals
from agent.platform.account import Account
from agent.platform.volume import is_mounted
from agent.settings.current import Current
from agent.state.runs import LastWord


class Greeting:
    """Greets each new shell. `before` is how the previous run ended."""

    def __init__(
        self,
        current: Current,
        account: Account,
        sessions: Sessions,
        watch: Watch,
        before: LastWord | None,
        budget: Budget,
        keyring: Keyring,
    ) -> None:
        self._current = current
        self._account = account
        self._sessions = sessions
        self._watch = watch
        self._before = before
        self._budget = budget
        self._keyring = keyring
        self._home = ""
        self.more: list[Callable[[], Iterable[str]]] = []
        """Lines of other parts."""

    def text(self) -> str:
        """The lines for a login at this moment."""
        settings = self._current.value
        now = clock()
        at = sleeps_at(self._watch.decision(), now)
        lines = ["swarm-agent: " + _about_sleep(None if at is None else at - now)]
        if self._before is not None:
            lines.append(_about(self._before))
        lines += (line for says in self.more for line in says())
        lines += filter(None, [self._budget.says()])
        lines.append(_about_volume(settings.volume))
        if self._home:
            lines.append(self._home)
        if self._keyring.in_home:
            lines.append(about(self._keyring.in_home))
        return "\n".join(lines)

    def hear(self, event: Event) -> None:
        """Greet the shell that starts."""
        if isinstance(event, Notice) and event.part == "home":
            self._home = event.notice
        if isinstance(event, ShellOpened):
            hushed = os.path.lexists(f"{self._account.home}/.hushlogin")
            session = self._sessions.get(event.session)
            if session is not None and not hushed:
                terminals.write(event.terminal, self.text())


def _about_sleep(seconds: float | None) -> str:
    if seconds is None:
        return "this machine does not sleep by itself."
    return (
        f"sleeps {words.duration(seconds)} after the last activity.\n"
        "swarm-agent awake --for 2h keeps it awake, swarm-agent why says what does."
    )


def _about(last: LastWord) -> str:
    when = time.strftime("%a %d %b %H:%M UTC", time.gmtime(last.at))
    awake = words.duration(last.awake)
    if not last.because:
        return f"The previous run ended unexpectedly, after {when}, {awake} after it started."
    return f"It last stopped {when} after {awake} awake: {last.because}."


def _about_volume(path: str) -> str:
    try:
        status = os.statvfs(path)
    except OSError as error:
        return f"No volume: all data is lost when this machine stops ({path}: {error.strerror})."
    if not is_mounted(path) and os.geteuid() == 0:  # for an ordinary user it is a plain folder
        return f"No volume is mounted at {path}: all data is lost when this machine stops."
    total = status.f_blocks * status.f_frsize
    used = total - status.f_bavail * status.f_frsize
    share = used / total if total else 0
    return f"{path}: {share:.0%} of {words.size(total)} used."
