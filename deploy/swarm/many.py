"""The same for several machines, side by side but not all at once, and what became of each."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass

AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Result:
    """What one machine's turn gave: words, or why it failed."""

    name: str
    says: str = ""
    problem: str = ""


def as_done(names: Sequence[str], work: Callable[[str], str]) -> Iterator[Result]:
    """Do it for every machine, in the order in which they end; one that fails costs no other."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting: list[Future[Result]] = [pool.submit(_one, name, work) for name in names]
        for future in as_completed(waiting):
            yield future.result()


def each(names: Sequence[str], work: Callable[[str], str]) -> list[Result]:
    """The same in the names' order, when all have ended."""
    found = {result.name: result for result in as_done(names, work)}
    return [found[name] for name in names]


def _one(name: str, work: Callable[[str], str]) -> Result:
    try:
        return Result(name, work(name))
    except Exception as error:  # told in the summary, whatever it is
        return Result(name, problem=str(error) or type(error).__name__)
