"""The same for several machines, side by side but not all at once, and what became of each."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Result:
    """What one machine's turn gave: words, or why it failed."""

    name: str
    says: str = ""
    problem: str = ""


def each(names: Sequence[str], work: Callable[[str], str]) -> list[Result]:
    """Do it for every machine; one that fails costs the others nothing. In the names' order."""

    def one(name: str) -> Result:
        try:
            return Result(name, work(name))
        except Exception as error:  # told in the summary, whatever it is
            return Result(name, problem=str(error) or type(error).__name__)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, names))
