"""The numbers of a run: one type for each kind of quantity, with the lowest and the highest value that can be meant.

Every number of a run file and of a command line has one of these types or limits of its own, so that a typing error of
many digits is refused and never computed with. Each bound is far above what a run can use.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

YEAR_S = 365 * 24 * 3600
DAY_S = 24 * 3600
MOST_TOKENS = 10**8

Count = Annotated[int, Gt(0), Le(10**6)]
CountOrZero = Annotated[int, Ge(0), Le(10**6)]
Samples = Annotated[int, Gt(0), Le(10**5)]
"""Of one task."""
Actors = Annotated[int, Gt(0), Le(10**4)]
"""Of one role; Ray itself is tried with some ten thousand in a cluster."""
LargeCount = Annotated[int, Gt(0), Le(10**9)]
"""Of things that are not all in memory at the same time: records of a file, executions one after another."""
Steps = Annotated[int, Ge(0), Le(10**9)]
PositiveSteps = Annotated[int, Gt(0), Le(10**9)]
Tokens = Annotated[int, Gt(0), Le(MOST_TOKENS)]
Threads = Annotated[int, Gt(0), Le(4096)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
"""numpy, which engines seed as well, takes no larger one."""
Seconds = Annotated[float, Gt(0), Le(30 * DAY_S)]
SecondsOrZero = Annotated[float, Ge(0), Le(30 * DAY_S)]
MIB_PER_PIB, GIB_PER_PIB = 2**30, 2**20
WholeMib = Annotated[int, Gt(0), Le(MIB_PER_PIB)]
Mib = Annotated[float, Gt(0), Le(MIB_PER_PIB)]
Gib = Annotated[float, Gt(0), Le(GIB_PER_PIB)]
Bytes = Annotated[int, Gt(0), Le(2**40)]
"""Of what one process holds at one time."""
Amount = Annotated[float, Gt(0), Le(10**6)]
"""Of processors, devices and custom resources."""
AmountOrZero = Annotated[float, Ge(0), Le(10**6)]
Temperature = Annotated[float, Ge(0), Le(100)]
Probability = Annotated[float, Ge(0), Le(1)]
Share = Annotated[float, Gt(0), Lt(1)]
"""A part of a whole that is neither nothing nor all of it."""
Rate = Annotated[float, Gt(0), Le(1)]
Coefficient = Annotated[float, Ge(0), Le(1000)]
"""The weight of a term of a loss or of an update."""
Clip = Annotated[float, Gt(0), Le(10**9)]
"""A limit on a ratio, a norm or a difference; one that is never reached is allowed."""
Reward = Annotated[float, Ge(-(10**9)), Le(10**9)]

LARGEST_FREE_NUMBER = 10**15
"""Size of the numbers in mappings whose keys this project does not know (`tasks.options`)."""

_WORDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def limits(metadata: Iterable[Any]) -> Iterator[tuple[str, float]]:
    """Yield the limits in what annotates a type, each as "gt", "ge", "lt" or "le" with its number."""
    for rule in metadata:
        for name in _WORDS:
            if (value := getattr(rule, name, None)) is not None:
                yield name, value


def bare(annotation: Any, metadata: Iterable[Any] = ()) -> tuple[Any, list[Any]]:
    """Return the type inside `Annotated`, and what annotates it: the innermost rules first, then `metadata`."""
    if get_origin(annotation) is Annotated:
        inner, *rules = get_args(annotation)
        return bare(inner, [*rules, *metadata])
    return annotation, list(metadata)


def in_words(metadata: Iterable[Any]) -> str:
    """Return limits as text, for example "above 0 and at most 1000000"; blank if there are none."""
    return " and ".join(f"{_WORDS[name]} {value:.15g}" for name, value in limits(metadata))


def allows(metadata: Iterable[Any], value: float) -> bool:
    """Return whether a number is within the limits; what is not a number is not."""
    tests = {"gt": value.__gt__, "ge": value.__ge__, "lt": value.__lt__, "le": value.__le__}
    return all(tests[name](limit) is True for name, limit in limits(metadata))
