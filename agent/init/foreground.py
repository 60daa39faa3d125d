"""The command of `run -- COMMAND`: in the foreground of the container, as under tini.

It leads its own process group and owns the terminal where there is one. Signals sent to the
agent reach its whole group, and its exit status becomes the container's.
"""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence

from agent.init.children import Child, Children

FORWARDED = (
    *(
        getattr(signal, f"SIG{name}")
        for name in (
            "HUP QUIT USR1 USR2 ALRM STKFLT CONT TSTP URG XCPU XFSZ VTALRM PROF WINCH IO PWR"
        ).split()
    ),
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
"""Signals that are forwarded to the command and have no other effect on the agent.

SIGTERM and SIGINT stop the agent, which then signals the command. Left out: SIGKILL and SIGSTOP
(cannot be caught), SIGCHLD (ours), SIGTTIN and SIGTTOU (about our own terminal use), SIGPIPE
(a closed stdout of ours would be passed on), and the faults SIGSEGV, SIGBUS, SIGFPE, SIGILL,
SIGTRAP, SIGABRT, SIGSYS (about this process).
"""


def start(children: Children, argv: Sequence[str], environ: Mapping[str, str]) -> Child:
    """Start the command with our stdin, stdout, stderr and `environ`.

    Raises `OSError`; `agent.exits` has the exit status that a shell would give.
    """
    child = children.spawn(argv, env=environ, stdin=None, foreground=True)
    _hand_over_terminal(child)

    def stopped(number: int) -> None:
        # Ctrl-Z: there is no parent shell that could resume it.
        if number == signal.SIGTSTP and os.isatty(0):
            child.send_group(signal.SIGCONT)

    child.on_stop = stopped
    return child


def forward_signals(loop: asyncio.AbstractEventLoop, child: Child) -> None:
    """Pass every signal of `FORWARDED` on to the command's process group."""
    for number in FORWARDED:
        loop.add_signal_handler(number, child.send_group, number)


def _hand_over_terminal(child: Child) -> None:
    if not os.isatty(0):
        return
    # tcsetpgrp from the background raises SIGTTOU; the agent itself must never stop.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        os.tcsetpgrp(0, child.pid)
    except OSError:
        # The terminal is not our controlling terminal: there is nothing to hand over.
        return
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTTOU})
    # The command may have read the terminal before it was its own, and stopped on SIGTTIN.
    child.send_group(signal.SIGCONT)
