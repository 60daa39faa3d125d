"""Progress for a person while something runs: a line with the elapsed time, then the outcome.

Without a terminal there are plain lines and no clock. `rich` is imported only for a terminal.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from agent import words

if TYPE_CHECKING:
    from rich.progress import Progress


def _somebody_looks() -> bool:
    return sys.stderr.isatty()


@dataclass
class Step:
    """The step that runs now; `outcome` replaces its text when it is done."""

    doing: str
    outcome: str = ""


@dataclass
class Show:
    """Shows steps to a person. `quiet`: only requested output and failures."""

    quiet: bool = False
    live: bool = field(default_factory=_somebody_looks)
    _status: "Progress | None" = None

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if not self.quiet:
            click.echo(text)

    def note(self, text: str) -> None:
        """Print a remark, such as a delay and its reason."""
        if not self.quiet:
            with self.paused():
                click.echo(f"  {text}", err=True)

    def passed(self, seconds: float, line: str) -> None:
        """Print a line of another program's output, `seconds` after its start."""
        click.echo(f"  {_took(seconds):>9}  {line}", err=True)

    @contextmanager
    def step(self, doing: str) -> Iterator[Step]:
        """Show that something runs, and how long it took; the caller shows a failure."""
        step = Step(doing)
        began = time.monotonic()
        with self._spinning(doing):
            yield step
        took = time.monotonic() - began
        if not self.quiet:
            outcome = step.outcome or doing
            clock = f"   {_took(took)}" if self.live and took >= 0.1 else ""
            click.echo(f"  {outcome}{clock}", err=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to a question or a build's output."""
        if self._status is not None:
            self._status.stop()
        try:
            yield
        finally:
            if self._status is not None:
                self._status.start()

    @contextmanager
    def _spinning(self, doing: str) -> Iterator[None]:
        if self.quiet or not self.live or self._status is not None:
            yield
            return
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
        console = Console(stderr=True)
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
            progress.add_task(doing, total=None)
            self._status = progress
            try:
                yield
            finally:
                self._status = None


def _took(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else words.duration(seconds)
