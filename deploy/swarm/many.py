"""The same work for several machines, a few at a time, and the result of each."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass

AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Result:
    """The result for one machine: a message, or why it failed."""

    name: str
    says: str = ""
    problem: str = ""


def as_done(names: Sequence[str], work: Callable[[str], str]) -> Iterator[Result]:
    """Do the work for every machine; yields results as they end. A failure affects no other."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting: list[Future[Result]] = [pool.submit(_one, name, work) for name in names]
        for future in as_completed(waiting):
            yield future.result()


def each(names: Sequence[str], work: Callable[[str], str]) -> list[Result]:
    """The same in the order of `names`, after all have ended."""
    found = {result.name: result for result in as_done(names, work)}
    return [found[name] for name in names]


def _one(name: str, work: Callable[[str], str]) -> Result:
    try:
        return Result(name, work(name))
    except Exception as error:  # any failure is reported in the summary
        return Result(name, problem=str(error) or type(error).__name__)
