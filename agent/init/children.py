"""The only place that starts processes and the only place that waits for them.

`waitpid(-1)` beside any other wait gives wrong exit statuses (one side takes what the other
waits for). So there is one reaper, and starting and registering a child happen in one step of
the event loop, before the loop can handle SIGCHLD again: no status can be lost, and no signal
can reach a process id that was reused.
"""

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, NoReturn

REAP_BATCH = 256
"""Children reaped in one step of the loop: 10,000 orphans must not hold it."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

UTF_8 = "C.UTF-8"
"""The default locale: it shows every letter and is always installed."""

_HEAD = 256
"""Bytes at the start of a file that show whether it may be a script."""

PR_SET_CHILD_SUBREAPER = 36

FAULTS = frozenset(
    getattr(signal, f"SIG{name}") for name in "SEGV BUS FPE ILL TRAP ABRT SYS".split()
)
"""Signals for faults of this process, which must end it."""

OOM_SCORE_ADJ = 200
"""When memory is short the kernel kills the process that uses most. A child counts as if it used a
fifth of all memory more; otherwise, with very many small processes, the agent would be killed
first."""

MOST_OUTPUT = 8 << 20
"""Bytes that `run` reads: then the pipe is closed, even if the program writes more."""

_CHUNK = 64 << 10

Stream = int | IO[bytes] | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """The account that a process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: `code` as a shell shows it (0-255; 128 + signal)."""

    code: int
    signal: int | None = None

    @classmethod
    def from_wait(cls, status: int) -> "ExitStatus":
        """Convert the status word of wait(2)."""
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return cls(128 + number, number)
        return cls(os.WEXITSTATUS(status))

    def __str__(self) -> str:
        return f"signal {self.signal}" if self.signal is not None else f"status {self.code}"


class NotDone(Exception):
    """A program exceeded its time and was killed; the message has its name and the limit."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended, and the last bytes of its stdout and stderr together."""

    status: ExitStatus
    output: bytes


class Child:
    """A process we started. `exited` is done once it is reaped, even if others hold its pipes."""

    def __init__(self, pid: int, process: "subprocess.Popen[bytes] | None" = None) -> None:
        self.pid = pid
        self.on_stop: Callable[[int], None] | None = None
        """Called with the signal that has stopped (not ended) it."""
        self.running = True
        """Not reaped yet, so that `pid` is still ours."""
        self._process = process
        self.exited: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()

    def send(self, number: int) -> None:
        """Signal the process; does nothing if it has ended."""
        if self.running:
            os.kill(self.pid, number)

    def send_group(self, number: int) -> None:
        """Signal the process group that it leads; does nothing if the leader has ended.

        If it has joined another group, only the process itself is signalled.
        """
        if not self.running:
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            os.kill(self.pid, number)

    def ended(self, status: ExitStatus) -> None:
        """Record that it was reaped; only the reaper calls this."""
        self.running = False
        if self._process is not None:
            # Popen must never wait by itself: with a return code it does not.
            self._process.returncode = 0 if status.signal is None else -status.signal
        if not self.exited.done():
            self.exited.set_result(status)


class _Tail:
    """Reads a pipe, keeps its last bytes, and closes it."""

    def __init__(self, reading: int, keep: int) -> None:
        self.kept = bytearray()
        self._reading = reading
        self._keep = keep
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(reading, self._read)

    def close(self) -> None:
        """Read the rest and close the pipe; does nothing the second time."""
        while self._reading >= 0 and self._read():
            pass
        self._end()

    def _read(self) -> bool:
        """Read one piece; False when nothing is left for now."""
        try:
            data = os.read(self._reading, _CHUNK)
        except BlockingIOError:
            return False
        self._count += len(data)
        self.kept += data
        del self.kept[: -self._keep]
        if not data or self._count > MOST_OUTPUT:
            self._end()
        return bool(data)

    def _end(self) -> None:
        if self._reading >= 0:
            self._loop.remove_reader(self._reading)
            os.close(self._reading)
            self._reading = -1


class Children:
    """Starts and reaps children. One per process, used from the event loop's thread only."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self.orphans_reaped = 0

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start reaping, beginning with children that have ended already."""
        loop.add_signal_handler(signal.SIGCHLD, self.reap)
        loop.call_soon(self.reap)

    def spawn(
        self,
        argv: Sequence[str | bytes],
        *,
        env: Mapping[str, str],
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        foreground: bool = False,
        cwd: str | None = None,
        run_as: Credentials | None = None,
    ) -> Child:
        """Start a process with exactly this environment. Raises `OSError`.

        It leads its own session without a controlling terminal: otherwise a program of another
        account could type commands into our terminal (TIOCSTI) or take it over. Only the command in
        the `foreground` stays in our session, in a process group of its own.
        """

        def start(words: "Sequence[str | bytes]") -> "subprocess.Popen[bytes]":
            return subprocess.Popen(
                words,
                env=dict(env),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=not foreground,
                process_group=0 if foreground else None,
                cwd=cwd,
                user=None if run_as is None else run_as.uid,
                group=None if run_as is None else run_as.gid,
                extra_groups=None if run_as is None else run_as.groups,
            )

        try:
            process = start(argv)
        except OSError as error:
            script = _script(argv[0], env) if error.errno == errno.ENOEXEC else None
            if script is None:
                raise
            process = start(["/bin/sh", script, *argv[1:]])
        with suppress(OSError):  # it has ended already, or the kernel lets only root do it
            set_oom_score_adj(process.pid, OOM_SCORE_ADJ)
        child = Child(process.pid, process)
        self._children[child.pid] = child
        return child

    def fork(self, work: Callable[[], NoReturn]) -> Child:
        """Run `work` in a forked copy of this process. Raises `OSError`.

        Call it only while there are no threads.
        """
        pid = os.fork()
        if pid == 0:
            work()
        child = Child(pid)
        self._children[child.pid] = child
        return child

    async def run(
        self,
        argv: Sequence[str | bytes],
        *,
        env: Mapping[str, str],
        patience: float,
        keep: int = 4096,
        stdin: Stream = subprocess.DEVNULL,
        cwd: str | None = None,
        run_as: Credentials | None = None,
    ) -> Finished:
        """Run a program for at most `patience` seconds. Raises `OSError` and `NotDone`.

        Returns its status and the last `keep` bytes of its output. Its process group is killed when
        the time is over or this is cancelled. Other processes that hold its output open are not
        waited for.
        """
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        try:
            child = self.spawn(
                argv, env=env, stdin=stdin, stdout=writing, stderr=writing, cwd=cwd, run_as=run_as
            )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        output = _Tail(reading, keep)
        try:
            async with asyncio.timeout(patience):
                await asyncio.shield(child.exited)
        except TimeoutError:
            raise NotDone(f"{os.fsdecode(argv[0])} was not done within {patience:.2g} s") from None
        finally:
            child.send_group(signal.SIGKILL)
            output.close()
        return Finished(child.exited.result(), bytes(output.kept))

    def adopt(self, pid: int, exited: ExitStatus | None) -> Child:
        """Register a child that this process started before it re-executed in place.

        `exited` is how it ended, if that is known already. Call this before `watch`, or the status
        of the child is taken for an orphan's.
        """
        child = Child(pid)
        if exited is None:
            self._children[pid] = child
        else:
            child.ended(exited)
        return child

    async def pause(self) -> None:
        """Stop reaping: children that end from now on are left to the next agent.

        Every signal that arrived before this call has been handled when it returns.
        """
        settled = asyncio.Event()
        loop = asyncio.get_running_loop()
        # Signals are handled in the order in which they came: ours is the last.
        loop.add_signal_handler(signal.SIGCHLD, settled.set)
        signal.raise_signal(signal.SIGCHLD)
        await settled.wait()

    def reap(self) -> None:
        """Reap every ended process, a batch at a time; called on SIGCHLD."""
        for _ in range(REAP_BATCH):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                self._stopped(pid, os.WSTOPSIG(status))
                continue
            child = self._children.pop(pid, None)
            if child is None:
                self.orphans_reaped += 1
            else:
                child.ended(ExitStatus.from_wait(status))
        asyncio.get_running_loop().call_soon(self.reap)

    def _stopped(self, pid: int, number: int) -> None:
        child = self._children.get(pid)
        if child is not None and child.on_stop is not None:
            child.on_stop(number)


def _script(program: str | bytes, env: Mapping[str, str]) -> str | None:
    """The path of a script without `#!`, which execvp(3) and shells run with /bin/sh; else None."""
    import shutil

    name = os.fsdecode(program)

    path = name if "/" in name else shutil.which(name, path=env.get("PATH"))
    if path is None:
        return None
    with open(path, "rb") as file:
        return None if b"\0" in file.read(_HEAD) else path  # a program of another machine


def set_oom_score_adj(pid: int, value: int) -> None:
    """Set how readily the kernel kills a process when memory is short. Raises `OSError`."""
    with open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(value))


def clean_environment() -> dict[str, str]:
    """The base environment of every child. Of ours it has only locale and time zone: no secret."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
    return {"PATH": PATH, "LANG": UTF_8} | kept


def become_subreaper() -> None:
    """Let orphans of our descendants become our children, unless we are PID 1 (prctl(2)).

    Raises `OSError` where the kernel refuses.
    """
    if os.getpid() == 1:
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def reset_signals() -> None:
    """Reset signals that a parent left ignored, and survive all that are no fault of this process.

    A service that inherits an ignored SIGHUP (nohup) cannot be stopped by the usual means. SIGPIPE
    stays as Python set it; `Popen` restores it in children. The kernel spares only PID 1 from the
    default actions: elsewhere USR1 would end the agent and TSTP freeze it. A handler that does
    nothing, unlike an ignored signal, is not inherited by children.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for number in signal.valid_signals() - FAULTS - _OTHERWISE:
        signal.signal(number, _do_nothing)


_OTHERWISE = {
    *(signal.SIGKILL, signal.SIGSTOP),  # cannot be caught
    *(signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE),  # handled elsewhere
}


def _do_nothing(_number: int, _frame: object) -> None:
    """Survive a signal."""


def leave_signals() -> None:
    """Leave all signals to the main thread: execve(2) loses one that another thread has taken."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - FAULTS)


def unblock_signals() -> None:
    """Unblock all signals. Call it once the handlers are set, and before any child is started.

    Signals that were sent while this process re-executed in place arrive now.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
